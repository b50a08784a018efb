#!/usr/bin/env python3
"""How many of ONNX's own node tests (`onnx.backend.test`, one operator each) pass here. `bench/tensors/nodes` runs it.

A test passes where shapes are equal and values within its own tolerances (by default 1e-3 relative, 1e-7 absolute, as
`onnx.backend.test.runner` has them; 1e-5 absolute here, as float16 and double are computed in float). Those with
element types that the runtime doesn't have count apart: they are refused when the model is loaded.
"""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import onnx
from onnx import numpy_helper

NODES = Path(onnx.__file__).parent / "backend/test/data/node"
RELATIVE, ABSOLUTE = 1e-3, 1e-5
SECONDS_MAX = 20


def tensors(folder, kind, names):
    found = []
    for index, name in enumerate(names):
        path = folder / f"{kind}_{index}.pb"
        if not path.exists():
            break
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        found.append((name, numpy_helper.to_array(tensor)))
    return found


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


def outcome(runner, folder):
    model = onnx.load(folder / "model.onnx")
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    data = folder / "test_data_set_0"
    try:
        given = tensors(data, "input", inputs)
        expected = tensors(data, "output", [value.name for value in model.graph.output])
        asked = {"model": str(folder / "model.onnx"), "inputs": [
            {"name": name, "shape": array.shape, "data": digits(array)} for name, array in given]}
    except Exception:
        # Sequences, optionals and texts have another form; what matters is that such a model is refused.
        given, expected, asked = [], None, {"model": str(folder / "model.onnx"), "inputs": []}
    answer = runner.run(asked)
    if "error" in answer:
        return answer["error"]
    if expected is None:
        return "compare: the expected outputs are no numbers"
    for (name, wanted), output in zip(expected, answer["outputs"], strict=True):
        found = numpy.frombuffer(bytes.fromhex(output["data"]), "<f8")
        if list(wanted.shape) != output["shape"]:
            return f"compare: {name} has the shape {output['shape']}, expected {list(wanted.shape)}"
        if not numpy.allclose(found, numpy.asarray(wanted, "f8").ravel(), RELATIVE, ABSOLUTE, equal_nan=True):
            return f"compare: {name} has other values"
    return "passed"


def main():
    runner, counts, by_reason = Runner(), collections.Counter(), collections.defaultdict(list)
    for folder in sorted(path for path in NODES.iterdir() if (path / "model.onnx").exists()):
        result = outcome(runner, folder)
        kind = result.split(":")[0]
        if kind == "load" and "is not supported (supported: tensors" in result:
            kind = "other element type"
        elif kind == "load":
            kind = "operator refused"
        counts[kind] += 1
        by_reason[kind].append((folder.name, result))
    total = sum(counts.values())
    names = {"run": "refused when run", "compare": "computed something else", "check": "refused inputs"}
    print(f"{total} node tests of onnx {onnx.__version__}: " + ", ".join(
        f"{count} {names.get(kind, kind)}" for kind, count in counts.most_common()))
    if "--verbose" in sys.argv:
        for kind, tests in by_reason.items():
            for name, result in tests if kind != "passed" else []:
                print(f"  {name}: {result[:200]}")


main()
