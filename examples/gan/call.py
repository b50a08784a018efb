"""Asks the service for ten pictures of each digit, prints some, and has a classifier of scikit-learn, trained on the real
digits, say what they are: call.py HOST:PORT."""

import pathlib
import sys

import numpy as np
import tritonclient.http
from sklearn.svm import SVC

client = tritonclient.http.InferenceServerClient(sys.argv[1])
signature = client.get_model_metadata("digits")
rows = {entry["name"]: int(entry["shape"][-1]) for entry in signature["inputs"]}
wanted = np.tile(np.arange(10), 10)
given = {
    "noise": np.random.default_rng(1).standard_normal((100, rows["noise"])).astype(np.float32),
    "label": np.eye(10, dtype=np.float32)[wanted],
}
inputs = []
for name, values in given.items():
    inputs.append(tritonclient.http.InferInput(name, list(values.shape), "FP32"))
    inputs[-1].set_data_from_numpy(values)
output = signature["outputs"][0]["name"]
pictures = client.infer("digits", inputs).as_numpy(output)
print(f"asked with {', '.join(rows)}; received {output} {pictures.shape}, {pictures.min():.1f} to {pictures.max():.1f}")
for y in range(8):
    print("  ".join("".join(" .:-=+*#%@"[int(value / 16 * 9.99)] for value in row[y, :, 0].clip(0, 16)) for row in pictures[:10]))

archive = np.load(pathlib.Path(__file__).parent / "data" / "digits.npz")
judge = SVC(gamma=0.001).fit(archive["x_train"].reshape(-1, 64), archive["y_train"])
real = judge.score(archive["x_test"].reshape(-1, 64), archive["y_test"])
made = judge.score(pictures.reshape(-1, 64), wanted)
print(f"scikit-learn takes {made:.0%} of them for the digit that was asked for ({real:.0%} of real ones)")
assert made > 0.9, "worse than it was trained to be"
