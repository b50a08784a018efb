"""Starts a server, asks it over HTTP what a workload says, stops it and prints a line of JSON.

Usage: load.py MODEL THREADS WORKLOAD SEED SERVER [flash], where SERVER is the binary of tureen or llama-server, and
WORKLOAD one of
- `clients:N`: N clients, each of which asks again once it is answered, 64 requests in all of mixed lengths;
- `rate:R`: requests of mixed lengths arrive for 15 seconds, R a second on average (Poisson), whatever is under way;
- `shared:N`: N requests at once, which begin with the same 1,000 tokens or so.

Prompts are cut from a book, answers are greedy, have a given number of tokens and are streamed. Percentiles of the time
to the first token are over requests, those of the time between tokens over all pairs of neighbouring tokens.
"""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from single import resident_mib

BOOK = Path(__file__).parent.parent.parent / "fixtures" / "smollm2" / "alice.txt"
SEQUENCES = 32
CONTEXT = 1280
CHARACTERS_PER_TOKEN = 4
REQUESTS = 64
ARRIVING_SECONDS = 15
# What is still under way then counts as unfinished.
RUN_SECONDS_MAX = 120
READY_SECONDS_MAX = 60


class Server:
    def __init__(self, binary, model, threads, flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if Path(binary).name == "tureen":
            command = [binary, "serve", f"measured={model}", "--listen", f"127.0.0.1:{self.port}", "--threads", threads,
                       "--sequences-max", str(SEQUENCES), "--context", str(CONTEXT)]
            self.ready_path = "/ready"
        else:
            command = [binary, "-m", model, "--host", "127.0.0.1", "--port", str(self.port), "-t", threads, "-tb", threads,
                       "-np", str(SEQUENCES), "-c", str(SEQUENCES * CONTEXT), "-fa", "on" if "flash" in flags else "off"]
            self.ready_path = "/health"
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    async def ready(self):
        give_up = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(f"GET {self.ready_path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                if b" 200 " in await reader.readline():
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)
        self.log.seek(0)
        sys.exit("the server did not become ready:\n" + self.log.read().decode(errors="replace")[-2000:])

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Answer:
    def __init__(self):
        self.sent, self.times, self.tokens, self.prompt_tokens, self.finished = time.perf_counter(), [], 0, 0, False


async def ask(port, prompt, answer_tokens, answers):
    """Sends one request, and remembers when each part of the answer came."""
    answer = Answer()
    answers.append(answer)
    body = json.dumps(dict(model="measured", prompt=prompt, max_tokens=answer_tokens, temperature=0, ignore_eos=True,
                           stream=True, stream_options=dict(include_usage=True))).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    status = await reader.readline()
    if b" 200 " not in status:
        sys.exit(f"the server answered {status}: {(await reader.read(2000)).decode(errors='replace')}")
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        # The last part has the usage and no text.
        if b'"usage":{' in line:
            usage = json.loads(line[6:])["usage"]
            answer.tokens, answer.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
        if b'"choices":[]' not in line:
            answer.times.append(time.perf_counter())
    writer.close()
    answer.finished = answer.tokens > 0


class Draw:
    """Prompts and lengths of answers."""

    def __init__(self, seed):
        self.random, self.book = random.Random(seed), BOOK.read_text()

    def text(self, tokens):
        characters = tokens * CHARACTERS_PER_TOKEN
        at = self.random.randrange(len(self.book) - characters)
        return self.book[at:at + characters]

    def mixed(self):
        return self.text(self.random.randint(16, 256)), self.random.randint(16, 96)


async def clients(port, count, draw, answers):
    waiting = [draw.mixed() for _ in range(REQUESTS)]

    async def client():
        while waiting:
            await ask(port, *waiting.pop(), answers)

    await asyncio.gather(*(client() for _ in range(count)))


async def rate(port, a_second, draw, answers):
    asked, ends = [], time.perf_counter() + ARRIVING_SECONDS
    while time.perf_counter() < ends:
        asked.append(asyncio.create_task(ask(port, *draw.mixed(), answers)))
        await asyncio.sleep(draw.random.expovariate(a_second))
    await asyncio.gather(*asked)


async def shared(port, count, draw, answers):
    prefix = draw.text(1000)
    await asyncio.gather(*(ask(port, prefix + draw.text(32), 16, answers) for _ in range(count)))


def percentiles(name, values):
    values = sorted(values)
    at = lambda share: round(values[min(len(values) - 1, int(share * len(values)))], 2) if values else None
    return {f"{name}_p{percent}": at(percent / 100) for percent in (50, 95, 99)}


def first(answer, ended):
    """When the first token came; of an answer that had none until the end, the end: it took longer than that."""
    return answer.times[0] if answer.times else ended


async def measure(server, workload, seed):
    kind, _, number = workload.partition(":")
    await server.ready()
    draw, warm, answers = Draw(seed), [], []
    await asyncio.gather(*(ask(server.port, draw.text(64), 8, warm) for _ in range(4)))
    started = time.perf_counter()
    work = dict(clients=clients, rate=rate, shared=shared)[kind](server.port, int(number), draw, answers)
    try:
        await asyncio.wait_for(work, RUN_SECONDS_MAX)
    except asyncio.TimeoutError:
        pass
    ended = time.perf_counter()
    seconds = ended - started
    finished = [answer for answer in answers if answer.finished]
    gaps = [(later - earlier) * 1e3 for answer in answers for earlier, later in zip(answer.times, answer.times[1:])]
    return dict(
        answers_per_s=round(len(finished) / seconds, 3), finished=len(finished), unfinished=len(answers) - len(finished),
        tokens_per_s=round(sum(answer.tokens for answer in finished) / seconds, 1),
        prompt_tokens=sum(answer.prompt_tokens for answer in finished),
        **percentiles("first_token_ms", [(first(answer, ended) - answer.sent) * 1e3 for answer in answers]),
        **percentiles("between_tokens_ms", gaps), resident_mib=round(resident_mib(server.process.pid), 1))


def main():
    model, threads, workload, seed, binary, *flags = sys.argv[1:]
    server = Server(binary, model, threads, flags)
    try:
        print(json.dumps(asyncio.run(measure(server, workload, int(seed)))))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
