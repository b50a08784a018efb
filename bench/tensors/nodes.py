#!/usr/bin/env python3
"""How many of ONNX's own node tests (`onnx.backend.test`, one operator each) pass here. `bench/tensors/nodes` runs it.

A test passes where shapes are equal and values within its own tolerances (by default 1e-3 relative; 1e-5 absolute is
the least here, as float16 and double are computed in float). Those with element types that the runtime doesn't have
count apart: they are refused when the model is loaded.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnx.numpy_helper
from onnx.backend.test.case.node import collect_testcases

ABSOLUTE_MIN = 1e-5


def plain(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def digits(array):
    return numpy.asarray(array, "<f8").tobytes().hex()


class Runner:
    def __init__(self):
        self.process = None

    def run(self, asked):
        if self.process is None:
            self.process = subprocess.Popen([os.environ["ONNX_RUN"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.DEVNULL, text=True)
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            code = self.process.wait()
            self.process = None
            return {"error": f"died: exit code {code}"}
        return json.loads(line)


def outcome(runner, test, path):
    onnx.save(test.model, path)
    weights = {weight.name for weight in test.model.graph.initializer}
    names = [value.name for value in test.model.graph.input if value.name not in weights]
    given, expected = (list(map(plain, side)) for side in test.data_sets[0])
    try:
        # Sequences, optionals and texts have another form; what matters is that such a model is refused.
        inputs = [{"name": name, "shape": numpy.shape(array), "data": digits(array)}
                  for name, array in zip(names, given) if not isinstance(array, (list, dict, type(None)))]
    except (TypeError, ValueError):
        inputs = []
    answer = runner.run({"model": path, "inputs": inputs})
    if "error" in answer:
        return answer["error"]
    for spec, wanted, output in zip(test.model.graph.output, expected, answer["outputs"], strict=True):
        found = numpy.frombuffer(bytes.fromhex(output["data"]), "<f8")
        if list(numpy.shape(wanted)) != output["shape"]:
            return f"compare: {spec.name} has the shape {output['shape']}, expected {list(numpy.shape(wanted))}"
        close = numpy.allclose(found, numpy.asarray(wanted, "f8").ravel(), test.rtol, max(test.atol, ABSOLUTE_MIN), equal_nan=True)
        if not close:
            return f"compare: {spec.name} has other values"
    return "passed"


def main():
    runner, counts, by_reason = Runner(), collections.Counter(), collections.defaultdict(list)
    scratch = tempfile.TemporaryDirectory()
    for test in collect_testcases(None):
        result = outcome(runner, test, f"{scratch.name}/model.onnx")
        kind = result.split(":")[0]
        if kind == "load" and "is not supported (supported: tensors" in result:
            kind = "other element type"
        elif kind == "load":
            kind = "operator refused"
        counts[kind] += 1
        by_reason[kind].append((test.name, result))
    total = sum(counts.values())
    names = {"run": "refused when run", "compare": "computed something else", "check": "refused inputs"}
    print(f"{total} node tests of onnx {onnx.__version__}: " + ", ".join(
        f"{count} {names.get(kind, kind)}" for kind, count in counts.most_common()))
    if "--verbose" in sys.argv:
        for kind, tests in by_reason.items():
            for name, result in tests if kind != "passed" else []:
                print(f"  {name}: {result[:200]}")


main()
