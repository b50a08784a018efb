"""A running `tureen serve`, and the clients that talk to it."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai

TUREEN = os.environ["TUREEN"]
MODEL = os.environ["E2E_MODEL"]
KEY = "sk-e2e-0123456789"
REFERENCE = json.loads((Path(__file__).parent.parent / "fixtures/smollm2/reference.json").read_text())
START_SECONDS_MAX = 60


PORTS_GIVEN = set()


def free_port():
    """One that nobody listens at, and that wasn't given before: whoever was given it may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in PORTS_GIVEN:
            PORTS_GIVEN.add(port)
            return port


def environment_with(keys):
    environment = {name: value for name, value in os.environ.items() if name != "TUREEN_KEYS"}
    return {**environment, "TUREEN_KEYS": keys} if keys else environment


def command(*arguments, keys=KEY, key=None, stdin=subprocess.DEVNULL, environment=None):
    """Starts the binary with `arguments`, standard error kept for messages; `key` is for asking a server."""
    environment = {**environment_with(keys), "TUREEN_KEY": key or "", **(environment or {})}
    return subprocess.Popen([TUREEN, *map(str, arguments)], stdin=stdin, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=environment)


class Service:
    def __init__(self, *arguments, keys=KEY, models=(MODEL,)):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = open(os.path.join(os.environ.get("TMPDIR", "/tmp"), f"tureen-e2e-{self.port}.log"), "w+")
        environment = environment_with(keys)
        self.process = subprocess.Popen(
            [TUREEN, "serve", *models, "--listen", f"127.0.0.1:{self.port}", *map(str, arguments)], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        self._wait_ready()
        self.client = self.new_client(keys and keys.split(",")[0])
        self.model = self.client.models.list().data[0].id

    def new_client(self, key=KEY, **options):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or "none", max_retries=0, timeout=120, **options)

    def new_async_client(self, key=KEY):
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key or "none", max_retries=0, timeout=300)

    def _wait_ready(self):
        give_up = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                raise AssertionError(f"the service ended with {self.process.returncode}: {self.said()}")
            with contextlib.suppress(OSError):
                if self.get("/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready in {START_SECONDS_MAX} s: {self.said()}")

    def said(self):
        self.log.flush()
        return Path(self.log.name).read_text()

    def get(self, path, key=None):
        """Status and body."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def post(self, path, body, headers=None, timeout=60):
        """Status, headers and body of a raw request: `body` is bytes, or JSON to be."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def metric(self, name):
        """The sum over all labels of a metric."""
        _, text = self.get("/metrics", KEY)
        values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                  if line.startswith(name) and line[len(name)] in "{ "]
        assert values, f"no metric {name} in:\n{text}"
        return sum(values)

    def wait_metric(self, name, value, seconds=10.0):
        give_up = time.monotonic() + seconds
        while (now := self.metric(name)) != value:
            assert time.monotonic() < give_up, f"{name} is {now} and not {value} after {seconds} s"
            time.sleep(0.01)

    def chat(self, content="Why is the sky blue?", client=None, **options):
        options = {"temperature": 0, "max_tokens": 32, **options}
        return (client or self.client).chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": content}], **options)

    def complete(self, prompt="The capital of France is", client=None, **options):
        options = {"temperature": 0, "max_tokens": 16, **options}
        return (client or self.client).completions.create(model=self.model, prompt=prompt, **options)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
