"""One run of llama.cpp, measured as `crates/engine/examples/bench.rs` measures this engine; prints a line of JSON.

Usage: peer.py MODEL THREADS PROMPT_TOKENS DECODE_TOKENS SEED [flash]
"""

import json
import sys
import time

import llama_cpp
import numpy


def measure(model, prompt, decode_tokens):
    vocabulary = model.n_vocab()

    def next_token(tokens):
        model.eval(tokens)
        row = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), shape=(vocabulary,))
        return int(row.argmax())

    model.reset()
    started = time.perf_counter()
    token = next_token(prompt)
    first = time.perf_counter()
    for _ in range(decode_tokens):
        token = next_token([token])
    ended = time.perf_counter()
    return (first - started) * 1e3, decode_tokens / (ended - first)


def main():
    path, *numbers = sys.argv[1:6]
    threads, prompt_tokens, decode_tokens, seed = map(int, numbers)
    model = llama_cpp.Llama(path, n_ctx=prompt_tokens + decode_tokens + 1, n_batch=prompt_tokens, n_ubatch=prompt_tokens,
                            n_threads=threads, n_threads_batch=threads, flash_attn="flash" in sys.argv[6:], verbose=False)
    draw = numpy.random.default_rng(seed)
    measure(model, draw.integers(0, model.n_vocab(), prompt_tokens).tolist(), 4)
    first_ms, rate = measure(model, draw.integers(0, model.n_vocab(), prompt_tokens).tolist(), decode_tokens)
    print(json.dumps(dict(first_token_ms=round(first_ms, 2), decode_tokens_per_s=round(rate, 2))))


if __name__ == "__main__":
    main()
