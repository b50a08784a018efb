"""Versions between two machines by way of a remote: a folder, and a bucket of an S3 server (moto's)."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from service import KEY, Service, command

ONNX = Path(__file__).parent.parent / "fixtures/onnx/article.onnx"
GGUF = Path(__file__).parent.parent / "fixtures/decoders/llama/model.gguf"
KEYS = {"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


@pytest.fixture(scope="module")
def bucket():
    """A URL, and the environment that goes with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/models", method="PUT"), timeout=5)
            break
        except OSError:
            assert server.poll() is None
            time.sleep(0.1)
    yield "s3://models/of/tests", {**KEYS, "AWS_ENDPOINT": endpoint}
    server.terminate()
    server.wait()


@pytest.fixture(params=["folder", "bucket"])
def remote(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "remote"), {}
    url, environment = request.getfixturevalue("bucket")
    return f"{url}/{tmp_path.name}", environment


def run(*arguments, environment=None, fails=False):
    process = command(*arguments, environment=environment)
    out, said = process.communicate(timeout=120)
    assert (process.returncode != 0) == fails, f"{arguments}: {said}"
    return out, said


def files(models, version):
    folder = Path(models, *version.replace("@", "/@").split("/"))
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def test_a_version_goes_from_one_machine_to_another(remote, tmp_path):
    place, environment = remote
    here, there = tmp_path / "here", tmp_path / "there"
    run("pull", ONNX, "--as", "net", "--models", here)
    run("pull", GGUF, "--as", "net", "--replace", "--models", here)
    for version in ("net@1", "net"):
        out, _ = run("push", version, place, "--models", here, environment=environment)
        assert "is in" in out
    out, _ = run("push", "net@1", place, "--models", here, environment=environment)
    assert "has it already, as net@1" in out
    out, _ = run("list", "--from", place, "--models", there, environment=environment)
    assert "net@1" in out and "net@2" in out and "latest" in out
    listed = json.loads(run("list", "--from", place, "--json", "--models", there, environment=environment)[0])
    assert [manifest["version"] for manifest in listed] == [1, 2]
    run("pull", "net@1", "--from", place, "--models", there, environment=environment)
    assert files(there, "net@1") == files(here, "net@1")
    run("pull", "net", "--from", place, "--models", there, environment=environment)
    assert files(there, "net@2") == files(here, "net@2")
    assert "whole" in run("verify", "--from", place, "--models", there, environment=environment)[0]
    assert "whole" in run("verify", "--models", there)[0]
    run("rm", "net@1", "--from", place, "--yes", "--models", there, environment=environment)
    out, _ = run("gc", place, "--models", there, environment=environment)
    assert "were deleted" in out and not out.startswith("0 chunks")
    _, said = run("pull", "net@1", "--from", place, "--as", "x", "--models", there, environment=environment, fails=True)
    assert "has no net@1, only net@2" in said
    run("pull", "net@2", "--from", place, "--as", "x", "--models", there, environment=environment)
    assert files(there, "x@1") == files(here, "net@2")


def test_what_was_pushed_to_a_folder_is_served_from_there(tmp_path):
    here, place = tmp_path / "here", tmp_path / "remote"
    run("pull", ONNX, "--as", "net", "--models", here)
    run("push", "net", place, "--models", here)
    service = Service("--models", tmp_path / "there", models=(f"net={place}/net@1",))
    try:
        status, body = service.get("/v2/models/net", KEY)
        assert status == 200 and json.loads(body)["name"] == "net", body
    finally:
        service.stop()


def test_pushes_at_once_get_a_number_each(remote, tmp_path):
    place, environment = remote
    stores = []
    for index in range(6):
        stores.append(tmp_path / f"store{index}")
        model = tmp_path / f"model{index}.onnx"
        # Bytes that an ONNX reader skips: field 15 of no meaning, with other contents each.
        model.write_bytes(ONNX.read_bytes() + bytes([0x7A, 2, 65 + index, 65]))
        run("pull", model, "--as", "net", "--models", stores[-1])
    pushes = [command("push", "net", place, "--models", store, environment=environment) for store in stores]
    for push in pushes:
        out, said = push.communicate(timeout=120)
        assert push.returncode == 0, said
    out, _ = run("list", "--from", place, "--json", "--models", stores[0], environment=environment)
    assert [manifest["version"] for manifest in json.loads(out)] == [1, 2, 3, 4, 5, 6]
    out, _ = run("gc", place, "--models", stores[0], environment=environment)
    assert out.startswith("0 chunks")


def test_a_killed_push_goes_on_and_leaves_nothing_half(remote, tmp_path):
    place, environment = remote
    models = tmp_path / "here"
    run("pull", GGUF, "--as", "net", "--models", models)
    for wait in (0.05, 0.1, 0.2, 0.4):
        push = command("push", "net", place, "--models", models, environment=environment)
        time.sleep(wait)
        push.send_signal(signal.SIGKILL)
        push.communicate()
        assert "whole" in run("verify", "--from", place, "--models", models, environment=environment)[0]
    run("push", "net", place, "--models", models, environment=environment)
    assert "whole" in run("verify", "net", "--from", place, "--models", models, environment=environment)[0]


def test_what_is_wrong_with_a_bucket_is_said(bucket, tmp_path):
    url, environment = bucket
    run("pull", ONNX, "--as", "net", "--models", tmp_path)
    _, said = run("push", "net", "s3://nowhere/x", "--models", tmp_path, environment=environment, fails=True)
    assert "NoSuchBucket" in said or "does not exist" in said
    _, said = run("push", "net", "ftp://x", "--models", tmp_path, fails=True)
    assert "is no remote" in said
    _, said = run("list", "--from", url, "--models", tmp_path, environment={**environment, "AWS_ALLOW_HTTP": "false"}, fails=True)
    assert "http" in said.lower()


@pytest.fixture
def web(tmp_path):
    """A remote that is a folder, and its URL by Python's own server of files."""
    place = tmp_path / "remote"
    place.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", place, str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5)
            break
        except OSError:
            assert server.poll() is None
            time.sleep(0.1)
    yield place, url
    server.terminate()
    server.wait()


def test_a_remote_is_read_from_a_server_of_files(web, tmp_path):
    place, url = web
    here, there = tmp_path / "here", tmp_path / "there"
    run("pull", GGUF, "--as", "net", "--models", here)
    _, said = run("pull", "net", "--from", url, "--models", there, fails=True)
    assert "has no index" in said or "has no net" in said
    run("push", "net", place, "--models", here)
    run("pull", ONNX, "--as", "net", "--replace", "--models", here)
    run("push", "net", place, "--models", here)
    listed = json.loads(run("list", "--from", url, "--json", "--models", there)[0])
    assert [manifest["version"] for manifest in listed] == [1, 2]
    for version in ("net@1", "net@2"):
        run("pull", version, "--from", url, "--models", there)
        assert files(there, version) == files(here, version)
    assert "whole" in run("verify", "--from", url, "--models", there)[0]
    for command_line in (("push", "net", url), ("rm", "net@1", "--yes", "--from", url), ("gc", url)):
        _, said = run(*command_line, "--models", here, fails=True)
        assert "can only be read" in said
    run("rm", "net@1", "--from", place, "--yes", "--models", here)
    _, said = run("pull", "net@1", "--from", url, "--as", "x", "--models", there, fails=True)
    assert "only net@2" in said


def test_two_versions_are_compared_here_and_there(tmp_path):
    place, models = tmp_path / "remote", tmp_path / "here"
    run("pull", GGUF, "--as", "net", "--models", models)
    run("push", "net", place, "--models", models)
    same = json.loads(run("diff", "net", f"{place}/net@1", "--json", "--models", models)[0])["differences"]
    assert same["files"] == [] and same["tensors"] == [] and same["bytes_shared"] == same["bytes"] > 0
    run("pull", ONNX, "--as", "net", "--replace", "--models", models)
    out, _ = run("diff", "net@1", "net@2", "--models", models)
    assert "added" in out and "removed" in out and "0.0% of net@2" in out
    _, said = run("diff", "net@1", f"{place}/net@7", "--models", models, fails=True)
    assert "only net@1" in said


def test_a_version_of_a_remote_is_served_from_a_cache(remote, tmp_path):
    place, environment = remote
    if "://" not in place:
        pytest.skip("a folder is a path, and a path is a file or folder to serve")
    here, there = tmp_path / "here", tmp_path / "there"
    run("pull", ONNX, "--as", "net", "--models", here)
    run("push", "net", place, "--models", here, environment=environment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ("serve", f"digits={place}/net@1", "--listen", f"127.0.0.1:{port}", "--models", there)
    _, said = run(*arguments, "--cache-max", "1KiB", environment=environment, fails=True)
    assert "cache_max" in said
    # The second time without the bucket: what a number means never changes.
    for environment in (environment, {**environment, "AWS_ENDPOINT": "http://127.0.0.1:9"}):
        server = command(*arguments, keys=None, environment=environment)
        for _ in range(300):
            try:
                answer = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/digits", timeout=5))
                break
            except OSError:
                assert server.poll() is None, server.communicate()
                time.sleep(0.1)
        assert answer["name"] == "digits"
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert "No models" in run("list", "--models", there)[0]
