"""Interleaves runs of this engine and of its peers, and writes a Markdown table: see `run`.

Each run is a process of its own, which loads the model, runs the workload once unmeasured and then measures it; the
workloads are those of `crates/engine/examples/bench.rs`. The ratio is of the medians, to the better peer.
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

WORKLOADS = ["prefill:512", "decode:32"]
PEERS = {
    "llama.cpp": ["peer_llama.py"],
    "llama.cpp, flash attention": ["peer_llama.py", "flash"],
}


def measured(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def commands(path, threads, workload, seed):
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    common = [str(path), str(threads), workload, str(seed)]
    all = {"tureen": [str(target / "release" / "examples" / "bench"), *common]}
    for name, (script, *flags) in PEERS.items():
        all[name] = [sys.executable, str(HERE / script), *common, *flags]
    return all


def figure(workload, run):
    """What a workload is about, the higher the better: tokens a second, or starts a second."""
    kind, _, number = workload.partition(":")
    if kind == "prefill":
        return int(number) / run["first_token_ms"] * 1e3
    return 1e3 / run["first_token_ms"] if kind == "start" else run["tokens_per_s"]


def spread(values):
    digits = 1 if max(values) < 100 else 0
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def model(name):
    """A variant of SmolLM2-135M by its quantisation, SHAPE-MIX of random weights (1B-Q4_K_M), or a file."""
    if Path(name).is_file():
        return Path(name)
    from reference import CACHE, published, variant
    shape, _, mix = name.partition("-")
    if not mix:
        return variant(name)
    path = CACHE / f"{name}.gguf"
    if not path.exists():
        subprocess.run([sys.executable, HERE / "random_model.py", shape, mix, published(), path], check=True)
    return path


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def rows(name, path, workload, options):
    """Lines of the table: one an engine."""
    runs = {}
    for repetition in range(options.repetitions):
        for engine, command in commands(path, options.threads, workload, repetition + 1).items():
            run = measured(command)
            runs.setdefault(engine, []).append(run)
            print(f"{name} {workload} {engine}: {run}", file=sys.stderr, flush=True)
    figures = {engine: [figure(workload, run) for run in of] for engine, of in runs.items()}
    peer = max(statistics.median(values) for engine, values in figures.items() if engine != "tureen")
    for engine, values in figures.items():
        memory = statistics.median(run["resident_mib"] for run in runs[engine])
        ratio = f"{statistics.median(values) / peer:.2f}"
        yield f"| {name} | {workload} | {engine} | {spread(values)} | {ratio} | {memory:.0f} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="prefill:N, decode:N, batch:B, start")
    parser.add_argument("--output", type=Path, help="write the table here, too")
    parser.add_argument("models", nargs="*", default=["Q4_1"], help=model.__doc__)
    options = parser.parse_args()
    import llama_cpp

    lines = [f"{processor()}, {options.threads} threads, {options.repetitions} runs of each, interleaved: median (least to most).",
             f"llama-cpp-python {llama_cpp.__version__}, built for this machine. Tokens a second (`start`: starts a second).", "",
             "| model | workload | engine | a second | to the better peer | resident MiB |",
             "| --- | --- | --- | --- | --- | --- |"]
    for name in options.models:
        path = model(name)
        for workload in options.workloads.split(","):
            lines.extend(rows(name, path, workload, options))
    table = "\n".join(lines) + "\n"
    print(table)
    if options.output:
        options.output.write_text(table)


if __name__ == "__main__":
    main()
