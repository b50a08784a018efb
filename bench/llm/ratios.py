"""What this engine must show against the best peer, and what it shows."""

import statistics

from engines import OURS
from models import LARGE
from report import best_peer, engines, number, times_as_good

INTEGERS = ["Q4_1", "Q4_0", "Q8_0", "Q4_K_M", "Q6_K"]
# Work, models, workload, times the best peer at least and as the aim.
TIMES = [
    ("prefill 512, integers", [*INTEGERS, *LARGE], "prefill:512", 2.0, 4.0),
    ("prefill 512, F16", ["F16"], "prefill:512", 1.2, 1.5),
    ("prefill 512, BF16", ["BF16"], "prefill:512", 2.0, 3.0),
    ("prefill 8192", INTEGERS, "prefill:8192", 2.0, 4.0),
    ("single decode", [*INTEGERS, "F16", "BF16", *LARGE], "decode:0", 1.2, None),
    ("32 sequences decoding", [*INTEGERS, *LARGE], "batch:32", 2.5, 4.0),
    ("32 HTTP clients, answers a second", [*INTEGERS, *LARGE], "clients:32", 2.0, 4.0),
    ("shared prefix, first token", [*INTEGERS, *LARGE], "shared:64", 5.0, 10.0),
    ("cold start", [*INTEGERS, *LARGE], "start", 1.0, 2.0),
]
READ_SHARE_LEAST, READ_SHARE_AIM = 0.85, 0.95
MEMORY_MOST, MEMORY_AIM = 1.15, 1.05
BETWEEN_TOKENS_MOST = 0.5


def ours(runs, name, workload):
    """The runs at the best of our settings, and which these are."""
    found = ((of, variant) for engine, variant, of, _ in engines(runs, name, workload) if engine == OURS and of)
    return next(found, (None, None))


def holds(condition):
    return "" if condition is None else "yes" if condition else "no"


def line(work, name, mine, peer, ratio, least, aim, holds_least, holds_aim):
    return f"| {work} | {name} | {mine} | {peer} | {ratio} | {least}: {holds(holds_least)} | {aim}: {holds(holds_aim)} |"


def against_peers(runs):
    for work, names, workload, least, aim in TIMES:
        for name in names:
            (mine, setting), peer = ours(runs, name, workload), best_peer(runs, name, workload)
            if not mine or not peer:
                continue
            variant, theirs = peer
            median = runs.median(name, workload, setting)
            ratio = times_as_good(workload, median, theirs)
            yield line(work, name, number(median), f"{number(theirs)} ({variant})", f"{ratio:.2f}", least, aim or "-",
                       ratio >= least, aim and ratio >= aim)


def between_tokens(runs):
    for name in [*INTEGERS, *LARGE]:
        entries = [entry for entry in engines(runs, name, "clients:32") if entry[2]]
        p99 = {variant: statistics.median(run["between_tokens_ms_p99"] for run in of) for _, variant, of, _ in entries}
        peers = {variant: value for variant, value in p99.items() if variant != OURS}
        if OURS in p99 and peers:
            best = min(peers, key=peers.get)
            ratio = p99[OURS] / peers[best]
            yield line("32 HTTP clients, ms between tokens p99", name, number(p99[OURS]), f"{number(peers[best])} ({best})",
                       f"{ratio:.2f}", f"at most {BETWEEN_TOKENS_MOST}", "-", ratio <= BETWEEN_TOKENS_MOST, None)


def against_the_machine(runs, weights):
    for name in LARGE:
        if ours(runs, name, "decode:0")[0]:
            median = runs.median(name, "decode:0", OURS)
            share, _ = runs.share(name, "decode:0", OURS, weights[name])
            yield line("single decode, of the read bandwidth", name, number(median), "what the machine reads",
                       f"{share:.0%}", "85%", "95%", share >= READ_SHARE_LEAST, share >= READ_SHARE_AIM)
    for name, model in weights.items():
        for workload in ("decode:2048", "decode:0"):
            mine, _ = ours(runs, name, workload)
            if mine:
                resident = statistics.median(run["resident_mib"] for run in mine)
                needed = model.file_mib + statistics.median(run["kv_mib"] for run in mine)
                ratio = resident / needed
                yield line(f"resident memory, {workload}", name, f"{resident:.0f} MiB", f"{needed:.0f} MiB of file and KV",
                           f"{ratio:.2f}", f"at most {MEMORY_MOST}", f"at most {MEMORY_AIM}", ratio <= MEMORY_MOST,
                           ratio <= MEMORY_AIM)


def markdown(runs, weights):
    lines = ["| work | model | ours | best peer | ratio | at least | aim |", "| --- | --- | --- | --- | --- | --- | --- |",
             *against_peers(runs), *between_tokens(runs), *against_the_machine(runs, weights)]
    return "\n".join(lines) + "\n"
