#!/usr/bin/env python3
"""Runs our training steps and the peers' in turn and prints a table of medians: see bench/train/run.

    measure.py EXAMPLES [--rounds 3] [NAME...]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

PEERS = ["tensorflow", "jax", "torch"]
OURS, MIXED = "tureen", "tureen, bfloat16"
HERE = Path(__file__).resolve().parent


def products():
    """Floating-point operations of the products in a step: a forward product counts as two more backwards, or as one more
    where the input needs no gradient."""
    rows, tokens = 64 * 32, 8 * 128
    layer = 4 * 256 * 256 + 2 * 256 * 1024
    attention = 2 * 8 * 8 * 128 * 128 * 32
    return {
        "article": 2 * 32 * (100 * 128 * 2 + 128 * 10 * 3),
        "dense": 2 * 128 * (784 * 1024 * 2 + 1024 * 10 * 3),
        "cnn": 2 * 64 * (26 * 26 * 9 * 32 * 2 + 11 * 11 * 9 * 32 * 64 * 3 + 1600 * 10 * 3),
        "gpt": 2 * 3 * (tokens * (4 * layer + 256 * 256) + 4 * attention),
        "lstm": 2 * (rows * (64 * 512 * 2 + 128 * 512 * 3) + 32 * 128 * 10 * 3),
    }


def lines(command, **environment):
    """The JSON lines that a command prints; none, with the reason told, if it fails."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        print(f"{command}: {reason[0]}", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def round_of(examples, names):
    """Who: network: microseconds a step."""
    step = str(examples / "training_step")
    found = {OURS: lines([step, *names]), MIXED: lines([step, *names], MIXED="1")}
    for peer in PEERS:
        found[peer] = lines([sys.executable, str(HERE / "peers.py"), peer, *names])
    return {who: {line["network"]: line["step_us"] for line in told} for who, told in found.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("examples", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("network", nargs="*")
    arguments = parser.parse_intermixed_args()
    peak = lines([str(arguments.examples / "peaks")])[0]["float_gop_s"]
    rounds = [round_of(arguments.examples, arguments.network) for _ in range(arguments.rounds)]
    whos = [OURS, MIXED, *PEERS]
    print(f"Microseconds a step: medians of {arguments.rounds} rounds taken in turn. In brackets the share of the peak of")
    print(f"{peak:.0f} GFLOP/s (f32 multiply-adds) that a step's products are. Times: the best peer's over ours.\n")
    print("| network | " + " | ".join(whos) + " | times |")
    print("| --- |" + " ---: |" * (len(whos) + 1))
    for network, operations in products().items():
        if network not in rounds[0][OURS]:
            continue
        values = {}
        for who in whos:
            told = [found[who][network] for found in rounds if network in found[who]]
            values[who] = statistics.median(told) if told else None
        best = min(value for who, value in values.items() if who in PEERS and value)
        cells = [f"{value:,.0f} ({operations / value / 1e3 / peak:.0%})" if value else "-" for value in values.values()]
        print(f"| {network} | " + " | ".join(cells) + f" | {best / values[OURS]:.2f} |")


main()
