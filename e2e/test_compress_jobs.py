"""Compressing as a service: a request over HTTP, its events, a stop, kills and resumes, and the result served."""

import json
import os
import signal
from pathlib import Path

from service import KEY, command
from test_jobs import DEFINITION, ask, children, create, events, models, samples, serve, wait  # noqa: F401

LLAMA = Path(__file__).parent.parent / "fixtures/decoders/llama/model.gguf"
TEXT = "".join(f"{i} and {i * 7} make {i * 8}. " for i in range(300)).encode()
LONG = {"source": "digits", "to": "fewer-weights", "definition": "digits.toml", "epochs": 10_000_000}


def upload(service, name, contents):
    return service.client.files.create(file=(name, contents), purpose="compress").id


def compress(service, request, **files):
    return ask(service, "POST", "/v1/jobs", {"kind": "compress", **request, "files": files})["id"]


def compress_network(service, request):
    """A job that trains the network `digits` again, whose data and definition are uploaded."""
    definition = DEFINITION.replace("EPOCHS", "3").encode()
    return compress(service, request, **{"digits.toml": upload(service, "d", definition), "samples.csv": upload(service, "s", samples())})


def wait_phase(service, job, phase, starts=1):
    """Waits until a job that was started so often is at it; the event that says so."""
    for _, event in events(service, job):
        starts -= event["event"] == "running"
        if starts <= 0 and event.get("phase") == phase and event["done"] > 0:
            return event
    raise AssertionError(f"{job} ended before")


def manifest(models, version):  # noqa: F811
    name, number = version.split("@")
    folder = models / name / f"@{number}"
    found = json.loads((folder / "manifest.json").read_text())
    assert {file["path"] for file in found["files"]} == {path.name for path in folder.iterdir()} - {"manifest.json"}
    return folder, found


def test_a_language_model_becomes_smaller_and_is_served(serve, models):  # noqa: F811
    out, said = command("pull", LLAMA, "--as", "tiny", "--models", models).communicate(timeout=60)
    assert "tiny" in out + said
    service = serve()
    job = compress(service, {"source": "tiny", "to": "Q4_0", "calibration": "a.txt", "measure": "b.txt"},
                   **{"a.txt": upload(service, "a", TEXT), "b.txt": upload(service, "b", TEXT)})
    seen = [event for _, event in events(service, job)]
    assert (seen[0]["event"], seen[-1]["event"]) == ("running", "done")
    steps = [(event["phase"], event["done"], event["all"]) for event in seen if event["event"] == "progress"]
    assert list(dict.fromkeys(phase for phase, _, _ in steps)) == ["calibrating", "quantising", "measuring"]
    assert all(0 <= done <= all_ for _, done, all_ in steps) and steps[-1][1] == steps[-1][2] > 0, steps
    done = ask(service, "GET", f"/v1/jobs/{job}")
    assert (done["kind"], done["state"], done["model"], done["version"]) == ("compress", "done", "tiny:q4_0", "tiny@2")
    assert done["progress"]["phase"] == "measuring"
    folder, found = manifest(models, "tiny@2")
    assert (found["parent"], found["job"], found["entry"]) == ("tiny@1", job, "Q4_0.gguf")
    assert found["metrics"]["kl_mean"] > 0 and found["facts"]["quantisation"] == "Q4_0"
    assert json.loads((folder / "Q4_0.report.json").read_text())["calibration_tokens"] >= 512
    page = (folder / "Q4_0.report.html").read_text()
    assert "KL divergence" in page
    assert service.get(f"/v1/jobs/{job}/report", KEY) == (200, page)
    report = ask(service, "GET", f"/v1/jobs/{job}/report", headers={"Accept": "application/json"})
    assert report["comparison"]["kl_mean"] == found["metrics"]["kl_mean"]
    service.stop()
    second = serve(served=["tiny:q4_0"])
    answer = second.client.completions.create(model="tiny:q4_0", prompt="hello", max_tokens=3)
    assert answer.usage.completion_tokens == 3
    out, said = command("jobs", job, "--models", models).communicate(timeout=60)
    assert "tiny@2" in out, said


def test_types_are_chosen_for_a_size(serve, models):  # noqa: F811
    command("pull", LLAMA, "--as", "tiny", "--models", models).communicate(timeout=60)
    service = serve()
    most = LLAMA.stat().st_size // 2
    request = {"source": "tiny", "to": "smallest", "calibration": "a.txt"}
    text = {"a.txt": upload(service, "a", TEXT)}
    job = compress(service, {**request, "target_size": f"{most}B"}, **text)
    assert wait(service, job, "done", "failed")["version"] == "tiny@2"
    folder, found = manifest(models, "tiny@2")
    assert 0.8 * most < (folder / "smallest.gguf").stat().st_size <= most
    assert found["metrics"]["kl_mean_of_calibration"] > 0
    assert b"How types were chosen" in (folder / "smallest.report.html").read_bytes()
    job = compress(service, {**request, "target_size": 1000}, **text)
    assert "with all weights in the fewest bits" in wait(service, job, "failed")["error"]
    status, body = service.get(f"/v1/jobs/{job}/report", KEY)
    assert status == 409 and "failed" in body
    status, _, body = service.post("/v1/jobs", {"kind": "compress", **request, "files": text})
    assert status == 400 and "--target-size" in json.loads(body)["error"]["message"]


def test_a_trained_network_becomes_smaller_and_is_served(serve, models):  # noqa: F811
    service = serve()
    wait(service, create(service, 20), "done")
    job = compress_network(service, {**LONG, "to": "fewer-units", "epochs": 5, "model": "thin"})
    seen = [event for _, event in events(service, job)]
    assert [event["loss"] > 0 for event in seen if event.get("phase") == "training" and event["done"]] == [True] * 5
    assert wait(service, job, "done", "failed")["version"] == "thin@1"
    _, found = manifest(models, "thin@1")
    assert (found["parent"], found["job"]) == ("digits@1", job) and found["metrics"]["accuracy"] > 0.5
    assert {"report.html", "report.json", "model.safetensors"} < {file["path"] for file in found["files"]}
    service.stop()
    second = serve(served=["thin"])
    _, _, body = second.post("/v1/models/thin:predict", {"instances": [[0.9, -0.5, 0.1, 0.0]]})
    assert len(json.loads(body)["predictions"][0]) == 3


def test_cancel_kill_and_resume(serve, models):  # noqa: F811
    service = serve()
    wait(service, create(service, 2), "done")
    job = compress_network(service, LONG)
    wait_phase(service, job, "training")
    assert ask(service, "POST", f"/v1/jobs/{job}/cancel")["stopping"]
    wait(service, job, "stopped")
    ask(service, "POST", f"/v1/jobs/{job}/resume")
    wait_phase(service, job, "training", starts=2)
    os.kill(children(service)[job], signal.SIGKILL)
    assert "signal: 9" in wait(service, job, "interrupted")["error"]
    ask(service, "POST", f"/v1/jobs/{job}/resume")
    wait_phase(service, job, "training", starts=3)
    service.process.kill()
    service.process.wait()
    second = serve()
    assert ask(second, "GET", f"/v1/jobs/{job}")["state"] == "running", "it works on without a server"
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(timeout=60) == 0, second.said()
    third = serve()
    ask(third, "POST", f"/v1/jobs/{job}/cancel")
    wait(third, job, "stopped")
    assert ask(third, "DELETE", f"/v1/jobs/{job}")["deleted"]
    assert [path.name for path in (models / "digits").iterdir()] == ["@1"], "nothing half made is in sight"


def test_a_server_that_stops_interrupts_it(serve):  # noqa: F811
    service = serve()
    wait(service, create(service, 2), "done")
    job = compress_network(service, LONG)
    wait_phase(service, job, "training")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0, service.said()
    second = serve()
    assert ask(second, "GET", f"/v1/jobs/{job}")["state"] == "interrupted"


def test_what_is_asked_wrongly_is_named(serve):  # noqa: F811
    service = serve()
    wait(service, create(service, 1), "done")
    right = {"kind": "compress", "source": "digits", "to": "int8-weights"}
    for key, value in [("source", "/etc/passwd"), ("source", "nothing"), ("source", "article.onnx"), ("to", "int9"), ("to", None),
                       ("definition", "../digits.toml"), ("definition", "digits.toml"), ("keep", "half"), ("model", "a/b"),
                       ("files", {"../x": "file-1"}), ("colour", "red"), ("kind", "shrink")]:
        status, _, body = service.post("/v1/jobs", {**right, key: value})
        assert (status, json.loads(body)["error"]["param"]) == (400, key), body
    file = upload(service, "x", DEFINITION.replace("samples.csv", "/etc/passwd").replace("EPOCHS", "1").encode())
    job = compress(service, {**right, "definition": "digits.toml"}, **{"digits.toml": file})
    assert "/etc/passwd" in (failed := wait(service, job, "failed", "done"))["error"] and "slash" in failed["error"], failed
