"""Interleaves runs of this engine and of llama.cpp, and writes a Markdown table: see `run`.

Each run is a process of its own: it loads the file, evaluates a prompt of random tokens once unmeasured, then another
one measured: the time until its first token is chosen, and the rate of the tokens after that. The peer runs without
and with its flash attention.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "fixtures" / "smollm2"))

PROMPT_TOKENS = 512
DECODE_TOKENS = 128


def measured(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def commands(path, threads, seed):
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    sizes = [str(path), str(threads), str(PROMPT_TOKENS), str(DECODE_TOKENS), str(seed)]
    return {
        "tureen": [str(target / "release" / "examples" / "bench"), *sizes],
        "llama.cpp": [sys.executable, str(HERE / "peer.py"), *sizes],
        "llama.cpp, flash attention": [sys.executable, str(HERE / "peer.py"), *sizes, "flash"],
    }


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the table here, too")
    parser.add_argument("variants", nargs="*", default=["Q4_1"])
    options = parser.parse_args()
    import llama_cpp
    from reference import variant

    lines = [f"{processor()}, {options.threads} threads, {options.repetitions} runs of each, interleaved: median (least to most).",
             f"llama-cpp-python {llama_cpp.__version__}, built for this machine.", "",
             f"| SmolLM2-135M | engine | first token of {PROMPT_TOKENS}, ms | prompt tok/s | decoding tok/s |",
             "| --- | --- | --- | --- | --- |"]
    for name in options.variants:
        path = variant(name)
        runs = {}
        for repetition in range(options.repetitions):
            for engine, command in commands(path, options.threads, repetition + 1).items():
                run = measured(command)
                runs.setdefault(engine, []).append(run)
                print(f"{name} {engine}: {run}", file=sys.stderr, flush=True)
        for engine, of in runs.items():
            first = [run["first_token_ms"] for run in of]
            prompt = [PROMPT_TOKENS / ms * 1e3 for ms in first]
            decode = [run["decode_tokens_per_s"] for run in of]
            lines.append(f"| {name} | {engine} | {spread(first, 0)} | {spread(prompt, 0)} | {spread(decode, 1)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if options.output:
        options.output.write_text(table)


if __name__ == "__main__":
    main()
