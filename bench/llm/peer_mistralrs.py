"""One workload of mistral.rs, measured as `crates/engine/examples/bench.rs` measures this engine; prints JSON.

Usage: peer_mistralrs.py MODEL THREADS WORKLOAD SEED [paged]

It takes text, not tokens: prompts are words of one token each. It wraps them in its chat template, which is counted,
and `decode:0` begins after that.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = sys.argv[2]
os.environ["RUST_LOG"] = "off"
import mistralrs
import numpy

from single import resident_mib, shape

WORDS = "the of and to in house water time light world people day work year life hand part place week case".split()


def stream(runner, words, answer_tokens, times):
    request = mistralrs.ChatCompletionRequest(
        messages=words, model="default", max_tokens=answer_tokens, temperature=0.0, stream=True, ignore_eos=True)
    for chunk in runner.send_chat_completion_request(request):
        times.append(time.perf_counter())
        if chunk.usage:
            times.prompt_tokens = chunk.usage.prompt_tokens


class Times(list):
    prompt_tokens = 0


def measure(runner, draw, words, sequences, answer_tokens):
    """The time to the last first token, the tokens a second while every answer ran, and the tokens of a prompt."""
    answers = [Times() for _ in range(sequences)]
    prompts = [" ".join(draw.choice(WORDS, max(words, 1))) for _ in answers]
    threads = [threading.Thread(target=stream, args=(runner, prompt, answer_tokens, times))
               for prompt, times in zip(prompts, answers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    all_run, first_ends = max(times[0] for times in answers), min(times[-1] for times in answers)
    tokens = sum(all_run < at <= first_ends for times in answers for at in times)
    rate = tokens / (first_ends - all_run) if tokens else 0.0
    return (all_run - started) * 1e3, rate, answers[0].prompt_tokens


def main():
    path, _, workload, seed = sys.argv[1:5]
    kind, prompt_tokens, sequences, answer_tokens = shape(workload)
    loading = time.perf_counter()
    which = mistralrs.Which.GGUF(quantized_model_id=str(Path(path).parent), quantized_filename=Path(path).name)
    runner = mistralrs.Runner(which=which, prefix_cache_n=0, max_seqs=max(sequences, 1), paged_attn="paged" in sys.argv[5:])
    load_ms = (time.perf_counter() - loading) * 1e3
    draw = numpy.random.default_rng(int(seed))
    template_tokens = 31
    if kind != "start":
        words = 1
        *_, counted = measure(runner, draw, words, 1, 4)
        template_tokens = counted - words if counted else template_tokens
    first_ms, rate, _ = measure(runner, draw, prompt_tokens - template_tokens, sequences, answer_tokens)
    if kind == "start":
        first_ms = (time.perf_counter() - loading) * 1e3
    print(json.dumps(dict(first_token_ms=round(first_ms, 2), tokens_per_s=round(rate, 2), load_ms=round(load_ms, 1),
                          resident_mib=round(resident_mib(), 1))))


main()
