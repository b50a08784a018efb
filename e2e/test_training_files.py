"""Files that training writes, in the programs that they are for. Needs cargo: the networks come from an example of `train`."""

import json
import os
import subprocess
import sys
from pathlib import Path

# With JAX, Keras's attention refuses values of another width than keys.
os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
import keras
import numpy
import onnx
import onnxruntime
import pytest

REPOSITORY = Path(__file__).parent.parent
DIFFERENCE_MAX = 1e-5


def safetensors(path):
    """huggingface.co/docs/safetensors: the length of a JSON header, the header, the values."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    arrays = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        arrays[name] = numpy.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    command = ["cargo", "run", "--quiet", "--locked", "--package", "train", "--example", "export", folder]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return folder


def assert_near(name, found, expected):
    assert found.shape == expected.shape, name
    difference = numpy.abs(found - expected) / numpy.maximum(numpy.abs(expected), 1)
    assert difference.max() < DIFFERENCE_MAX, f"{name}: {difference.max()}"


def test_onnxruntime_computes_what_training_does(folder):
    paths = sorted(folder.glob("*.onnx"))
    assert len(paths) > 20
    for path in paths:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        arrays = safetensors(path.with_suffix(".safetensors"))
        session = onnxruntime.InferenceSession(path)
        names = [value.name for value in session.get_inputs()]
        for samples in (len(arrays["x0"]), 1):
            outputs = session.run(None, {name: arrays[f"x{i}"][:samples] for i, name in enumerate(names)})
            for i, output in enumerate(outputs):
                assert_near(path.stem, output, arrays[f"y{i}"][:samples])


def test_keras_predicts_what_training_does(folder):
    paths = sorted(folder.glob("*.keras"))
    assert len(paths) > 20
    for path in paths:
        if path.stem in ("threshold", "cropped"):
            continue  # Keras itself can't call this activation by name, and doesn't crop when it predicts.
        arrays = safetensors(path.with_suffix(".safetensors"))
        model = keras.saving.load_model(path)
        xs = [arrays[f"x{i}"] for i in range(len(model.inputs))]
        outputs = model.predict(xs if len(xs) > 1 else xs[0], verbose=0)
        for i, output in enumerate(outputs if isinstance(outputs, list) else [outputs]):
            assert_near(path.stem, numpy.asarray(output), arrays[f"y{i}"])


def test_keras_goes_on_training(folder):
    for path in sorted((folder / "fitted").glob("*.keras")):
        arrays = safetensors(path.with_suffix(".safetensors"))
        model = keras.saving.load_model(path)
        for expected in arrays["losses"]:
            loss = float(model.train_on_batch(arrays["x0"], arrays["targets"]))
            assert abs(loss / expected - 1) < 1e-4, path.stem


def test_training_predicts_what_keras_does(tmp_path):
    """Some forty networks that Keras wrote, read by a test of `train`."""
    script = REPOSITORY / "fixtures/training/keras_networks.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    test = ["cargo", "test", "--quiet", "--locked", "--package", "train", "--test", "files", "archives_of_keras"]
    subprocess.run(test, cwd=REPOSITORY, check=True, env=os.environ | {"KERAS_NETWORKS": str(tmp_path)})
