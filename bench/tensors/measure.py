#!/usr/bin/env python3
"""Serves the article's network (100 features, 128 hidden units, 10 classes) from here and from its peers, and asks each
over 64 connections that stay open. Rounds are interleaved, the median of each is printed; the load generator takes its
share of the same cores. See bench/tensors/run.

    measure.py [--rounds 3] [--seconds 4] [--connections 64] [SERVER...]
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "fixtures/onnx/article.onnx"
START_SECONDS_MAX = 60
FEATURES = [((index * 37) % 101 - 50) / 25 for index in range(100)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def inference(name):
    return {"inputs": [{"name": name, "shape": [1, 100], "datatype": "FP32", "data": FEATURES}]}


def servers(port):
    """Name: (command, path, body)."""
    peers = [sys.executable, str(HERE / "peers.py")]
    ours = [os.environ["TUREEN"], "serve", str(MODEL), "--listen", f"127.0.0.1:{port}", "--threads", "1",
            # As uvicorn is run below: without a line for each request.
            "--log", "warn"]
    return {
        "tureen": (ours, "/v2/models/article/infer", inference("x")),
        "fastapi": ([*peers, "fastapi", str(MODEL), str(port)], "/predict", {"instances": [FEATURES]}),
        "mlserver": ([*peers, "mlserver", str(MODEL), str(port)], "/v2/models/article/infer", inference("x")),
    }


def wait(port, path, body, process):
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}; see .cache/tensors/*.log")
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
            return json.load(urllib.request.urlopen(request, timeout=5))
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"a server did not answer within {START_SECONDS_MAX} s")


def numbers(answer):
    return answer["predictions"][0] if "predictions" in answer else answer["outputs"][0]["data"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("server", nargs="*")
    arguments = parser.parse_args()
    cache = Path(os.environ["CACHE"])
    running, results, answers = {}, {}, {}
    try:
        for name in arguments.server or ["tureen", "fastapi", "mlserver"]:
            port = free_port()
            command, path, body = servers(port)[name]
            body_file = cache / f"{name}.json"
            body_file.write_text(json.dumps(body))
            log = open(cache / f"{name}.log", "w")
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cache)
            running[name] = (process, port, path, body_file)
            answers[name] = numbers(wait(port, path, body_file.read_bytes(), process))
        first = next(iter(answers.values()))
        for name, found in answers.items():
            assert max(abs(a - b) for a, b in zip(found, first, strict=True)) < 1e-5, f"{name} computes something else"
        for _ in range(arguments.rounds):
            for name, (_, port, path, body_file) in running.items():
                # The others stand still: some take processor time though nobody asks them.
                for other, (process, *_) in running.items():
                    process.send_signal(signal.SIGCONT if other == name else signal.SIGSTOP)
                load = [os.environ["LOAD"], f"127.0.0.1:{port}", path, str(body_file), str(arguments.connections),
                        str(arguments.seconds)]
                results.setdefault(name, []).append(json.loads(subprocess.check_output(load)))
    finally:
        for process, *_ in running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait()
    print(f"{'':10} {'requests/s':>10} {'p50 us':>8} {'p99 us':>8}")
    for name, rounds in results.items():
        middle = {key: statistics.median(result[key] for result in rounds) for key in rounds[0]}
        print(f"{name:10} {middle['requests_per_second']:10.0f} {middle['p50_us']:8.0f} {middle['p99_us']:8.0f}")


main()
