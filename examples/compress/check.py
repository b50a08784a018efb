"""Runs what was made in onnxruntime, on the test part of examples/article's data, and holds it to the engine's figure.

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
for path in sorted(pathlib.Path(sys.argv[1]).glob("*/model.onnx")):
    onnx.checker.check_model(str(path), full_check=True)
    report = json.loads((path.parent / "report.json").read_text())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    (answers,) = session.run(None, {name: x})
    accuracy = float((answers.argmax(axis=1) == y).mean())
    batch, best = x[:64], float("inf")
    for _ in range(50):
        started = time.perf_counter()
        session.run(None, {name: batch})
        best = min(best, time.perf_counter() - started)
    ours = report["after"]["accuracy"]
    # One answer in a hundred may fall otherwise, where two classes are as likely.
    agrees = abs(ours - accuracy) <= 0.01
    failed |= not agrees
    print(f"{path.parent.name:20} onnxruntime {accuracy:.4f}, here {ours:.4f}, {len(batch) / best:9.0f} rows/s"
          + ("" if agrees else "  DIFFERS"))
sys.exit(failed)
