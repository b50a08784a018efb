"""Models by way of OCI registries: Debian's `docker-registry`, with a password that docker's file keeps, and an artefact
that another client (oras) packed and reads."""

import base64
import json
import shutil
import socket
import subprocess
import time

import pytest

from test_remotes import ONNX, files, run

# `htpasswd -nbB me hush`
HASHES = "me:$2y$05$KvEBNuwKrf9mOVMQVZm4le3P6jLh41KyvEKS3fI.ww83zG9iZBI4C\n"
WHO = {"auth": base64.b64encode(b"me:hush").decode()}


def installed():
    if shutil.which("docker-registry") is None:
        install = "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes docker-registry"
        subprocess.run(["sh", "-c", f"[ $(id -u) = 0 ] && {install}"], capture_output=True)
    return shutil.which("docker-registry") is not None


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Its address, and the environment that opens it."""
    if not installed():
        pytest.skip("docker-registry is not here and can't be installed (Debian: docker-registry)")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "htpasswd").write_text(HASHES)
    config = {
        "version": "0.1", "storage": {"filesystem": {"rootdirectory": str(folder / "data")}}, "http": {"addr": at},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    server = subprocess.Popen(
        ["docker-registry", "serve", folder / "config.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", int(at.rsplit(":")[1])), timeout=5).close()
            break
        except OSError:
            assert server.poll() is None
            time.sleep(0.1)
    (folder / "config.json").write_text(json.dumps({"auths": {at: WHO}}))
    yield at, {"DOCKER_CONFIG": str(folder)}
    server.terminate()
    server.wait()


def test_a_model_goes_to_a_registry_and_comes_back(registry, tmp_path):
    at, environment = registry
    here, there = tmp_path / "here", tmp_path / "there"
    run("pull", ONNX, "--as", "net", "--models", here)
    place = f"oci://{at}/team/net:v1"
    _, said = run("push", "net", "--to", place, "--models", here, environment={"DOCKER_CONFIG": str(tmp_path)}, fails=True)
    assert "TUREEN_OCI_USER" in said
    out, _ = run("push", "net", "--to", place, "--models", here, environment=environment)
    assert f"net@1 is {place} (sha256:" in out
    out, _ = run("pull", place, "--models", there, environment=environment)
    assert "net:v1: version 1" in out and "sha256 checked" in out
    assert files(there, "net@1") == files(here, "net@1")
    _, said = run("pull", place, "--models", there, environment=environment)
    assert "is here already" in said
    shown = json.loads(run("list", "--json", "--models", there)[0])
    assert shown[0]["facts"]["kind"] == "onnx"
    # What the service that this becomes is asked is told elsewhere; here, that it is a model.
    out, _ = run("show", "net:v1", "--models", there)
    assert "onnx" in out


def test_another_client_reads_and_packs(registry, tmp_path):
    oras = pytest.importorskip("oras.client", reason="the package oras is not here")
    at, environment = registry
    here, there = tmp_path / "here", tmp_path / "there"
    client = oras.OrasClient(hostname=at, insecure=True, auth_backend="basic")
    client.login(username="me", password="hush", hostname=at, config_path=str(tmp_path / "oras.json"))
    run("pull", ONNX, "--as", "net", "--models", here)
    run("push", "net", f"oci://{at}/net:ours", "--models", here, environment=environment)
    client.pull(target=f"{at}/net:ours", outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / ONNX.name).read_bytes() == ONNX.read_bytes()
    (tmp_path / "config.json").write_text("{}")
    annotations = {"org.cncf.model.filepath": "theirs.onnx"}
    (tmp_path / "annotations.json").write_text(json.dumps({str(ONNX): annotations}))
    client.push(
        target=f"{at}/net:theirs",
        files=[f"{ONNX}:application/vnd.cncf.model.weight.v1.raw"],
        manifest_config=f"{tmp_path / 'config.json'}:application/vnd.cncf.model.config.v1+json",
        annotation_file=str(tmp_path / "annotations.json"),
        disable_path_validation=True,
    )
    out, _ = run("pull", f"oci://{at}/net:theirs", "--models", there, environment=environment)
    assert "net:theirs: version 1" in out
    assert files(there, "net@1") == {"theirs.onnx": ONNX.read_bytes()}
