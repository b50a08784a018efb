"""The table: each engine at its best settings, in the order in which it was measured."""

import statistics

from engines import OURS
from workloads import figure, is_over_http, less_is_better, unit


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values):
    return f"{number(min(values))} to {number(max(values))}"


def engines(runs, name, workload):
    """Engine by engine the runs at its best settings, or why there is none: (engine, variant, runs, why)."""
    found = []
    lines = runs.of(name, workload)
    for engine in dict.fromkeys(line["engine"] for line in lines):
        of = [line for line in lines if line["engine"] == engine]
        medians = {line["variant"]: runs.median(name, workload, line["variant"]) for line in of}
        medians = {variant: value for variant, value in medians.items() if value is not None}
        if medians:
            best = (min if less_is_better(workload) else max)(medians, key=medians.get)
            found.append((engine, best, [line["run"] for line in of if line["variant"] == best and "cannot" not in line["run"]], None))
        else:
            found.append((engine, engine, [], of[0]["run"]["cannot"]))
    return found


def best_peer(runs, name, workload):
    """The best peer's variant and median, where a peer could do it."""
    peers = [(variant, runs.median(name, workload, variant)) for engine, variant, of, _ in engines(runs, name, workload)
             if engine != OURS and of]
    return (min if less_is_better(workload) else max)(peers, key=lambda peer: peer[1], default=None)


def times_as_good(workload, ours, peer):
    return peer / ours if less_is_better(workload) else ours / peer


def row(runs, weights, name, workload, entry):
    engine, variant, of, why = entry
    if why:
        return f"| {name} | {workload} | {variant} | - | {why} | | | |"
    values = [figure(workload, run) for run in of]
    peer = best_peer(runs, name, workload)
    ratio = f"{times_as_good(workload, statistics.median(values), peer[1]):.2f}" if peer else ""
    share = runs.share(name, workload, variant, weights)
    share = f"{share[0]:.0%} of {share[1]}" if share else ""
    memory = statistics.median(run["resident_mib"] for run in of)
    return (f"| {name} | {workload} | {variant} | {number(statistics.median(values))} {unit(workload)} | {spread(values)}, "
            f"{len(of)} run{'s' if len(of) > 1 else ''} | {ratio} | {share} | {memory:.0f} |")


def http_row(name, workload, entry):
    engine, variant, of, why = entry
    if why:
        return f"| {name} | {workload} | {variant} | {why} | | | | |"
    middle = lambda key: statistics.median(run[key] for run in of if run[key] is not None)
    three = lambda key: " / ".join(number(middle(f"{key}_p{percent}")) for percent in (50, 95, 99))
    return (f"| {name} | {workload} | {variant} | {number(middle('answers_per_s'))} | {number(middle('tokens_per_s'))} | "
            f"{three('first_token_ms')} | {three('between_tokens_ms')} | {number(middle('unfinished'))} |")


def markdown(runs, weights, facts):
    """Two tables: medians of the main figure of each workload, and what requests over HTTP saw."""
    peak = lambda key: spread([run[key] for run in runs.peaks()])
    lines = [
        f"{facts['processor']}, {facts['threads']} threads; at most {facts['repetitions']} runs of each, interleaved, each "
        "engine at the best of its settings that were tried.", ""]
    if runs.peaks():
        lines += [f"The machine at best, measured before each round: {peak('read_gb_s')} GB/s of reading, {peak('byte_gop_s')} G int8 "
                  f"operations/s, {peak('float_gop_s')} G f32 operations/s.", ""]
    lines += [
        "| model | workload | engine | median | spread | to the best peer | of the peak | resident MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    pairs = dict.fromkeys((line["model"], line["workload"]) for line in runs.lines if line["model"])
    for name, workload in pairs:
        lines += [row(runs, weights[name], name, workload, entry) for entry in engines(runs, name, workload)]
    http = [pair for pair in pairs if is_over_http(pair[1])]
    if http:
        lines += ["", "Over HTTP, in milliseconds at 50 / 95 / 99% (medians of the runs):", "",
                  "| model | workload | engine | answers/s | tokens/s | to the first token | between tokens | unfinished |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- |"]
        for name, workload in http:
            lines += [http_row(name, workload, entry) for entry in engines(runs, name, workload)]
    return "\n".join(lines) + "\n"
