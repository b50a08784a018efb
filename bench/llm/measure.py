"""Interleaves runs of this engine and of its peers, and writes a table and a plot: see `run`.

Each run is a process of its own, which loads the model, runs the workload once unmeasured and then measures it. First
each engine runs at each of its settings; those within a quarter of the engine's best go on. A peer that comes to less
than 40% of the best peer is not measured again. Every run is a line of runs.jsonl, from which `--resume` goes on.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

from engines import OURS, PACKED, ROOT, target, variants
from models import LARGE, SMALL, in_page_cache, model
from workloads import IN_PROCESS, OVER_HTTP, Weights, figure, is_over_http, less_is_better
import plot
import ratios
import report

GOES_ON_WITHIN = 0.75
PEER_GOES_ON_WITHIN = 0.4
UNFINISHED = 75

# What is measured for each set of models.
DEFAULT = [(["Q4_1"], ["prefill:512", "decode:0", "batch:32", "start"])]
ALL = [(["Q4_1", "Q4_0"], IN_PROCESS + OVER_HTTP),
       (["Q8_0", "Q4_K_M", "Q6_K", "F16", "BF16"], IN_PROCESS),
       (LARGE, [workload for workload in IN_PROCESS if workload not in ("prefill:8192", "decode:8192")] + OVER_HTTP[:1])]
CHECK = [(["Q4_1"], ["prefill:512", "prefill:8192", "decode:0", "decode:2048", "batch:32", "clients:32", "shared:64", "start"]),
         (["Q4_0"], ["prefill:512", "prefill:8192", "decode:0", "batch:32"]),
         ([name for name in SMALL if name not in ("Q4_1", "Q4_0")], ["prefill:512", "decode:0"]),
         (["1B-Q4_K_M", "3B-Q4_K_M"], ["prefill:512", "decode:0", "batch:32", "start"])]


class Runs:
    """Every run so far, in memory and in a file."""

    def __init__(self, path, resume):
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if resume and path.exists() else []
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, **line):
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)

    def of(self, name, workload, variant=None):
        return [line for line in self.lines if line["model"] == name and line["workload"] == workload
                and variant in (None, line["variant"])]

    def peaks(self):
        """Every measurement of what the machine can do."""
        return [line["run"] for line in self.lines if line["workload"] == "peaks"]

    def share(self, name, workload, variant, weights):
        """The median share of the machine's peak, as measured last before each run, and of which."""
        shares, peaks = [], None
        for line in self.lines:
            if line["workload"] == "peaks":
                peaks = line["run"]
            elif (line["model"], line["workload"], line["variant"]) == (name, workload, variant) and "cannot" not in line["run"]:
                shares.append(weights.share(workload, figure(workload, line["run"]), peaks))
        return None if None in shares else (statistics.median(share for share, _ in shares), shares[0][1])

    def median(self, name, workload, variant):
        values = [figure(workload, line["run"]) for line in self.of(name, workload, variant) if "cannot" not in line["run"]]
        return statistics.median(values) if values else None


def measured(command, seconds_max):
    prefix = shlex.split(os.environ.get("BENCH_PREFIX", ""))
    done = subprocess.run([*prefix, "timeout", str(seconds_max), *command], capture_output=True, text=True)
    if done.returncode == 124:
        return dict(cannot=f"took more than {seconds_max} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        print(done.stderr[-2000:], file=sys.stderr)
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with {done.returncode}"]
        errors = [line for line in said if line.startswith("Error: ")]
        return dict(cannot=f"failed: {(errors or said)[-1][:120]}")
    return json.loads(lines[-1])


def going_on(runs, name, workload, taking):
    """Those worth a further run, after each had one."""
    figures = {variant: runs.median(name, workload, variant.name) for variant in taking}
    goodness = {variant: 1 / value if less_is_better(workload) else value for variant, value in figures.items() if value}
    peer = max((value for variant, value in goodness.items() if variant.engine != OURS), default=0)
    best = {variant.engine: max(value for other, value in goodness.items() if other.engine == variant.engine)
            for variant in goodness}
    return [variant for variant, value in goodness.items() if value >= GOES_ON_WITHIN * best[variant.engine]
            and (variant.engine == OURS or best[variant.engine] >= PEER_GOES_ON_WITHIN * peer)]


def measure(runs, name, workload, options):
    path = model(name)
    taking, absent = variants(workload)
    taking = [variant for variant in taking if not options.engines or variant.engine in options.engines.split(",")]
    for engine, why in absent.items():
        if not runs.of(name, workload, engine):
            runs.add(model=name, workload=workload, engine=engine, variant=engine, run=dict(cannot=why))
    # Every other round runs backwards, so that no engine always follows the same one.
    for repetition in range(1, options.repetitions + 1):
        due = [variant for variant in taking if len(runs.of(name, workload, variant.name)) < repetition]
        # Neighbours on the same host take bandwidth, now more, now less.
        if due and not is_over_http(workload) and time.monotonic() < options.ends:
            peaks(runs, options)
        for variant in taking if repetition % 2 else taking[::-1]:
            if len(runs.of(name, workload, variant.name)) >= repetition:
                continue
            if time.monotonic() > options.ends:
                sys.exit(UNFINISHED)
            in_page_cache(path)
            seed = 1000 * repetition + 1
            if str(PACKED) in variant.flags and repetition == 1:
                measured(variant.command(path, options.threads, workload, seed), options.seconds_a_run)
            run = measured(variant.command(path, options.threads, workload, seed), options.seconds_a_run)
            runs.add(model=name, workload=workload, engine=variant.engine, variant=variant.name, run=run)
        taking = going_on(runs, name, workload, taking)


def peaks(runs, options):
    run = measured([str(target() / "examples" / "peaks"), str(options.threads)], 60)
    if "cannot" in run:
        sys.exit(f"the machine's peaks could not be measured: {run['cannot']}")
    runs.add(model="", workload="peaks", engine="", variant="", run=run)


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def write(runs, weights, options):
    facts = dict(processor=processor(), threads=options.threads, repetitions=options.repetitions)
    table = report.markdown(runs, weights, facts)
    if options.check:
        table = ratios.markdown(runs, weights) + "\n" + table
    (options.output / "table.md").write_text(table)
    (options.output / "plot.svg").write_text(plot.svg(runs, facts))
    print(table)
    print(f"written: {options.output / 'table.md'}, plot.svg, runs.jsonl")


def main():
    parser = argparse.ArgumentParser(prog="bench/llm/run", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every workload and model (hours)")
    parser.add_argument("--check", action="store_true", help="what the ratios asked for need, and a table of those ratios")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--workloads", help="instead: prefill:N, decode:C, batch:B, start, clients:N, rate:R, shared:N")
    parser.add_argument("--engines", help="only these, by the names in the table, with commas between them")
    parser.add_argument("--output", type=Path, default=ROOT / ".cache/bench/llm", help="the folder for table, plot and runs")
    parser.add_argument("--resume", action="store_true", help="go on from the runs that are in the output folder")
    parser.add_argument("--seconds", type=float, default=float("inf"),
                        help=f"begin no run after that many seconds; end with {UNFINISHED} where some are left")
    parser.add_argument("--seconds-a-run", type=int, default=300, help="a run that takes longer is listed as such")
    parser.add_argument("models", nargs="*", help=model.__doc__)
    options = parser.parse_args()
    options.ends = time.monotonic() + options.seconds
    options.output.mkdir(parents=True, exist_ok=True)
    plan = ALL if options.all else CHECK if options.check else DEFAULT
    if options.models or options.workloads:
        workloads = options.workloads.split(",") if options.workloads else DEFAULT[0][1]
        plan = [(options.models or DEFAULT[0][0], workloads)]

    runs = Runs(options.output / "runs.jsonl", options.resume)
    for names, workloads in plan:
        for name in names:
            for workload in workloads:
                measure(runs, name, workload, options)
    names = dict.fromkeys(line["model"] for line in runs.lines if line["model"])
    write(runs, {name: Weights.of(model(name)) for name in names}, options)


if __name__ == "__main__":
    main()
