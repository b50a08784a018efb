"""A table of what was made, each run in onnxruntime too on the test part of examples/article's data: its accuracy there has
to be the engine's.

    check.py FOLDER article|digits
"""

import json
import pathlib
import sys
import time

import numpy as np
import onnx
import onnxruntime

data = pathlib.Path(__file__).parent.parent / "article" / "data"
if sys.argv[2] == "article":
    table = np.loadtxt(data / "test.csv", delimiter=",", skiprows=1, dtype=np.float32)
    x, y = table[:, :-1], table[:, -1].astype(int)
else:
    arrays = np.load(data / "digits.npz")
    x, y = arrays["x_test"].astype(np.float32), arrays["y_test"]

failed = False
print(f"\n{sys.argv[2]:16} {'bytes':>7} {'share':>6} {'numbers':>8} {'accuracy':>9} {'rows/s':>10}   in onnxruntime")
for index, path in enumerate(sorted(pathlib.Path(sys.argv[1]).glob("*/model.onnx"))):
    onnx.checker.check_model(str(path), full_check=True)
    report = json.loads((path.parent / "report.json").read_text())
    before, after = report["before"], report["after"]
    if index == 0:
        print(f"{'(original)':16} {before['bytes']:7} {1:6.1%} {before['parameters']:8} {before['accuracy']:9.4f} "
              f"{before['samples_per_second']:10.0f}")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    (answers,) = session.run(None, {name: x})
    accuracy = float((answers.argmax(axis=1) == y).mean())
    batch, best = x[:64], float("inf")
    for _ in range(50):
        started = time.perf_counter()
        session.run(None, {name: batch})
        best = min(best, time.perf_counter() - started)
    # One answer in a hundred may fall otherwise, where two classes are as likely.
    agrees = abs(after["accuracy"] - accuracy) <= 0.01
    failed |= not agrees
    print(f"{path.parent.name:16} {after['bytes']:7} {after['bytes'] / before['bytes']:6.1%} {after['parameters']:8} "
          f"{after['accuracy']:9.4f} {after['samples_per_second']:10.0f}   {accuracy:.4f} {len(batch) / best:10.0f} rows/s"
          + ("" if agrees else "  DIFFERS"))
sys.exit(failed)
