"""Asks the two services for the classes of the test data, over REST and gRPC: call.py HOST:PORT GRPC_HOST:PORT."""

import pathlib
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http

rest, grpc = sys.argv[1:]
folder = pathlib.Path(__file__).parent / "data"
table = np.loadtxt(folder / "test.csv", delimiter=",", skiprows=1, dtype=np.float32)
archive = np.load(folder / "digits.npz")
services = {
    "article": (table[:, :-1], table[:, -1].astype(int)),
    "digits": (archive["x_test"], archive["y_test"]),
}
for protocol, library, address in [
    ("REST", tritonclient.http, rest),
    ("gRPC", tritonclient.grpc, grpc),
]:
    client = library.InferenceServerClient(address)
    for name, (samples, labels) in services.items():
        signature = client.get_model_metadata(name)
        if protocol == "REST":
            given, wanted = signature["inputs"][0]["name"], signature["outputs"][0]["name"]
        else:
            given, wanted = signature.inputs[0].name, signature.outputs[0].name
        asked = library.InferInput(given, list(samples.shape), "FP32")
        asked.set_data_from_numpy(np.ascontiguousarray(samples))
        probabilities = client.infer(name, [asked]).as_numpy(wanted)
        share = (probabilities.argmax(axis=1) == labels).mean()
        print(f"{protocol}: {name} is right on {share:.1%} of {len(labels)} samples")
        assert share > 0.9, "worse than it was trained to be"
