"""Training as a service: a CSV and a definition uploaded, a job watched, stopped, killed and resumed, its result served."""

import json
import os
import random
import signal
import time
import urllib.request
from pathlib import Path

import openai
import pytest

from service import KEY, Service, command

FIXTURE = f"article={Path(__file__).parent.parent}/fixtures/onnx/article.onnx"
CLASSES = 3
DEFINITION = """
[model]
input = [4]
layers = [
  { class = "Dense", units = 16, activation = "relu" },
  { class = "Dense", units = 3, activation = "softmax" },
]
[data]
path = "samples.csv"
y = "label"
[compile]
optimizer = { class = "Adam", learning_rate = 0.01 }
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
[fit]
epochs = EPOCHS
batch_size = 32
seed = 7
"""


GAN = """
[generator]
inputs = { noise = [6], label = [3] }
layers = [
  { class = "Concatenate", inputs = ["noise", "label"] },
  { class = "Dense", units = 32, activation = "relu" },
  { class = "Dense", units = 4, activation = "tanh" },
]
[discriminator]
inputs = { sample = [4], label = [3] }
layers = [
  { class = "Concatenate", inputs = ["sample", "label"] },
  { class = "Dense", units = 64, activation = "leaky_relu" },
  { class = "Dense", units = 1 },
]
[data]
path = "samples.csv"
y = "label"
[gan]
loss = "hinge"
r1 = 0.1
moving_average = 0.98
generator_optimizer = { class = "Adam", learning_rate = 0.002, beta_1 = 0.5 }
discriminator_optimizer = { class = "Adam", learning_rate = 0.002, beta_1 = 0.5 }
[fit]
epochs = 60
"""


def samples(count=600):
    """Four features, of which the largest of the first three is the class."""
    draw = random.Random(1)
    lines = ["a,b,c,d,label"]
    for _ in range(count):
        features = [draw.uniform(-1, 1) for _ in range(4)]
        lines.append(",".join(f"{x:.4f}" for x in features) + f",{features[:CLASSES].index(max(features[:CLASSES]))}")
    return "\n".join(lines).encode() + b"\n"


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def serve(models):
    running = []

    def serve(*arguments, served=(FIXTURE,), **options):
        running.append(Service("--models", models, *arguments, models=served, **options))
        return running[-1]

    yield serve
    for one in running:
        one.stop()


def ask(service, method, path, body=None, headers=None):
    request = urllib.request.Request(service.url + path, None if body is None else json.dumps(body).encode(), method=method,
                                     headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def create(service, epochs, model="digits"):
    file = service.client.files.create(file=("samples.csv", samples()), purpose="fine-tune")
    return ask(service, "POST", "/v1/jobs", {
        "kind": "train", "model": model, "definition": DEFINITION.replace("EPOCHS", str(epochs)),
        "files": {"samples.csv": file.id}})["id"]


def events(service, job, after=None):
    """The events of a job as (id, event), until its end."""
    headers = {"Authorization": f"Bearer {KEY}", **({"Last-Event-ID": after} if after else {})}
    request = urllib.request.Request(f"{service.url}/v1/jobs/{job}/events", headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        number = None
        for line in answer:
            name, _, value = line.decode().strip().partition(": ")
            if name == "id":
                number = value
            elif name == "data":
                if value == "[DONE]":
                    return
                yield number, json.loads(value)


def wait(service, job, *states, seconds=60):
    give_up = time.monotonic() + seconds
    while (found := ask(service, "GET", f"/v1/jobs/{job}"))["state"] not in states:
        assert time.monotonic() < give_up, found
        time.sleep(0.1)
    return found


def wait_epochs(service, job, starts=1):
    """Waits until a job that was started so often has kept something since; its last `started`."""
    found = None
    for _, event in events(service, job):
        if event["event"] == "started":
            found, starts = event, starts - 1
        if starts <= 0 and event["event"] == "checkpoint":
            return found
    raise AssertionError(f"{job} ended before")


def test_a_csv_becomes_a_service(serve, models):
    service = serve()
    job = create(service, 20)
    seen = list(events(service, job))
    kinds = [event["event"] for _, event in seen]
    assert kinds[0] == "running" and kinds[-1] == "done" and kinds.count("epoch") == 20
    middle = len(seen) // 2
    assert list(events(service, job, seen[middle - 1][0])) == seen[middle:], "Last-Event-ID goes on from there"
    done = ask(service, "GET", f"/v1/jobs/{job}")
    assert (done["state"], done["version"], done["error"]) == ("done", "digits@1", None)
    service.stop()
    second = serve(served=["digits", "first=digits@1"])
    rows = [[0.9, -0.5, 0.1, 0.0], [-0.7, 0.8, 0.1, 0.3], [-0.2, -0.5, 0.9, -0.6]]
    for name in ("digits", "first"):
        _, _, body = second.post(f"/v1/models/{name}:predict", {"instances": rows})
        assert [max(range(CLASSES), key=row.__getitem__) for row in json.loads(body)["predictions"]] == [0, 1, 2]
    assert ask(second, "GET", "/v1/jobs")["data"][0]["id"] == job
    out, said = command("verify", "digits", "--models", models).communicate(timeout=60)
    assert out.startswith("digits@1: whole"), said
    out, said = command("jobs", job, "--models", models).communicate(timeout=60)
    assert "digits@1" in out, said


def test_a_generator_becomes_a_service(serve):
    service = serve()
    file = service.client.files.create(file=("samples.csv", samples()), purpose="fine-tune").id
    job = ask(service, "POST", "/v1/jobs", {"kind": "train", "model": "maker", "definition": GAN, "files": {"samples.csv": file}})["id"]
    epochs = [event for _, event in events(service, job) if event["event"] == "epoch"]
    figures = [epoch["metrics"]["frechet_distance"] for epoch in epochs]
    assert len(figures) == 60 and figures[-1] < figures[0] / 4, figures
    assert wait(service, job, "done", "failed")["version"] == "maker@1"
    service.stop()
    second = serve(served=["maker"])
    draw = random.Random(2)
    classes = [number % CLASSES for number in range(60)]
    rows = [{"noise": [draw.gauss(0, 1) for _ in range(6)], "label": [float(c == k) for k in range(CLASSES)]} for c in classes]
    _, _, body = second.post("/v1/models/maker:predict", {"instances": rows})
    made = json.loads(body)["predictions"]
    right = sum(max(range(CLASSES), key=row.__getitem__) == c for row, c in zip(made, classes))
    assert right > 45 and all(len(row) == 4 for row in made), (right, made[:3])


def test_files_are_openai_s(serve):
    service = serve("--file-max", "1MiB")
    client = service.client
    contents = samples()
    file = client.files.create(file=("my samples.csv", contents), purpose="fine-tune")
    assert (file.bytes, file.filename, file.purpose) == (len(contents), "my samples.csv", "fine-tune")
    assert client.files.retrieve(file.id) == file
    assert [one.id for one in client.files.list(purpose="fine-tune")] == [file.id]
    assert client.files.content(file.id).read() == contents
    with pytest.raises(openai.APIStatusError) as refused:
        client.files.create(file=("large", b"x" * (2 << 20)), purpose="fine-tune")
    assert refused.value.status_code == 413
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)
    with pytest.raises(openai.AuthenticationError):
        service.new_client("wrong").files.list()


def test_other_files_of_the_machine_are_out_of_reach(serve):
    service = serve()
    file = service.client.files.create(file=("samples.csv", samples()), purpose="fine-tune").id
    for path in ("/etc/passwd", "../samples.csv", "input/../../x"):
        definition = DEFINITION.replace("EPOCHS", "1").replace("samples.csv", path)
        status, _, body = service.post("/v1/jobs", {"kind": "train", "model": "m", "definition": definition,
                                                    "files": {"samples.csv": file}})
        assert (status, json.loads(body)["error"]["param"]) == (400, "definition")
    status, _, _ = service.post("/v1/jobs", {"kind": "train", "model": "m", "definition": "", "files": {"../x": file}})
    assert status == 400


def test_a_definition_that_is_none_is_refused_at_once(serve):
    service = serve()
    for wrong, said in (("loss = ", "lost = "), ("epochs = EPOCHS", "colour = 1"), ("[model]", "[cake]")):
        definition = DEFINITION.replace(wrong, said).replace("EPOCHS", "1")
        status, _, body = service.post("/v1/jobs", {"kind": "train", "model": "m", "definition": definition})
        error = json.loads(body)["error"]
        assert (status, error["param"]) == (400, "definition"), body
    assert ask(service, "GET", "/v1/jobs")["data"] == []


def test_a_job_that_fails_says_why(serve):
    service = serve()
    file = service.client.files.create(file=("samples.csv", b"a,b,c,d,label\n1,2,x,4,0\n"), purpose="fine-tune").id
    job = ask(service, "POST", "/v1/jobs", {"kind": "train", "model": "m", "files": {"samples.csv": file},
                                            "definition": DEFINITION.replace("EPOCHS", "1")})["id"]
    failed = wait(service, job, "failed", "done")
    assert "samples.csv" in failed["error"] and "2" in failed["error"], failed


def test_cancel_kill_and_resume(serve):
    service = serve()
    job, waiting = create(service, 100_000), create(service, 2)
    wait_epochs(service, job)
    assert ask(service, "GET", f"/v1/jobs/{waiting}")["state"] == "queued", "one at a time"
    assert ask(service, "POST", f"/v1/jobs/{job}/cancel")["stopping"]
    wait(service, job, "stopped")
    wait(service, waiting, "done")
    ask(service, "POST", f"/v1/jobs/{job}/resume")
    wait_epochs(service, job, starts=2)
    os.kill(children(service)[job], signal.SIGKILL)
    killed = wait(service, job, "interrupted")
    assert "signal: 9" in killed["error"]
    ask(service, "POST", f"/v1/jobs/{job}/resume")
    assert wait_epochs(service, job, starts=3)["step"] > 0, "it goes on from its checkpoint"
    ask(service, "POST", f"/v1/jobs/{job}/cancel")
    wait(service, job, "stopped")
    assert ask(service, "DELETE", f"/v1/jobs/{job}") == {"id": job, "object": "job", "deleted": True}
    assert job not in [left["id"] for left in ask(service, "GET", "/v1/jobs")["data"]]


def children(service):
    """The processes of jobs, by the job that each does."""
    found = {}
    for task in Path(f"/proc/{service.process.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            found[Path(f"/proc/{pid}/cmdline").read_text().split("\0")[-2]] = int(pid)
    return found


def test_a_killed_server_leaves_its_jobs_working_and_finds_those_that_died(serve):
    service = serve("--jobs-max", 2)
    working, dying = create(service, 100_000, "one"), create(service, 100_000, "two")
    for job in (working, dying):
        wait_epochs(service, job)
    pids = children(service)
    service.process.kill()
    service.process.wait()
    os.kill(pids[dying], signal.SIGKILL)
    second = serve("--jobs-max", 2)
    assert "gone" in wait(second, dying, "interrupted")["error"]
    assert ask(second, "GET", f"/v1/jobs/{working}")["state"] == "running"
    wait_epochs(second, working)
    ask(second, "POST", f"/v1/jobs/{working}/cancel")
    wait(second, working, "stopped")


def test_a_server_that_stops_interrupts_its_jobs(serve):
    service = serve()
    job = create(service, 100_000)
    wait_epochs(service, job)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0, service.said()
    second = serve()
    assert ask(second, "GET", f"/v1/jobs/{job}")["state"] == "interrupted"
    ask(second, "POST", f"/v1/jobs/{job}/resume")
    wait(second, job, "running")
    ask(second, "POST", f"/v1/jobs/{job}/cancel")
    wait(second, job, "stopped")


def test_memory_is_limited(serve):
    service = serve("--job-memory-max", "6MB")
    job = create(service, 5)
    failed = wait(service, job, "failed", "done", "interrupted")
    assert failed["state"] == "failed" and failed["error"], failed
    assert service.get("/health")[0] == 200
    service.stop()
    service = serve("--job-memory-max", "512MB", "--job-threads", "1")
    wait(service, create(service, 5), "done")
