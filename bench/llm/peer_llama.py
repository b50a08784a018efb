"""One workload of llama.cpp, measured as `crates/engine/examples/bench.rs` measures this engine; prints a line of JSON.

Usage: peer_llama.py MODEL THREADS WORKLOAD SEED [flash] [long] [unified]

`flash`: with flash attention; `long`: prompts in steps of 2048 tokens, not of 512; `unified`: sequences share one cache.
"""

import json
import sys
import time

import llama_cpp
import numpy

from single import resident_mib, shape


class Batch:
    """The tokens of one step: (token, position, sequence, whether logits are wanted)."""

    def __init__(self, context, tokens_max, sequences):
        self.context, self.batch = context, llama_cpp.llama_batch_init(tokens_max, 0, sequences)

    def run(self, rows):
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        failed = llama_cpp.llama_decode(self.context, batch)
        assert failed == 0, f"llama_decode: {failed}"

    def best(self, row, vocabulary):
        logits = llama_cpp.llama_get_logits_ith(self.context, row)
        return int(numpy.ctypeslib.as_array(logits, shape=(vocabulary,)).argmax())


def measure(model, draw, prompt_tokens, sequences, answer_tokens):
    """The time to the last first token, and the tokens a second after it."""
    context, vocabulary = model.ctx, model.n_vocab()
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    batch = Batch(context, max(model.n_batch, sequences), sequences)
    prompts = [draw.integers(0, vocabulary, prompt_tokens).tolist() for _ in range(sequences)]
    started = time.perf_counter()
    tokens = []
    for sequence, prompt in enumerate(prompts):
        rows = [(token, i, sequence, i + 1 == prompt_tokens) for i, token in enumerate(prompt)]
        for at in range(0, prompt_tokens, model.n_batch):
            batch.run(rows[at:at + model.n_batch])
        tokens.append(batch.best(-1, vocabulary))
    first = time.perf_counter()
    for step in range(answer_tokens - 1):
        batch.run([(token, prompt_tokens + step, sequence, True) for sequence, token in enumerate(tokens)])
        tokens = [batch.best(row, vocabulary) for row in range(sequences)]
    ended = time.perf_counter()
    llama_cpp.llama_batch_free(batch.batch)
    rate = sequences * (answer_tokens - 1) / (ended - first) if answer_tokens > 1 else 0.0
    return (first - started) * 1e3, rate


def main():
    path, threads, workload, seed = sys.argv[1:5]
    threads, flash = int(threads), "flash" in sys.argv[5:]
    kind, prompt_tokens, sequences, answer_tokens = shape(workload)
    unified = "unified" in sys.argv[5:]
    # Sequences with caches of their own get equal parts, in multiples of 256 positions.
    positions = (prompt_tokens + answer_tokens + 1) * sequences if unified else \
        -(-(prompt_tokens + answer_tokens + 1) // 256) * 256 * sequences
    loading = time.perf_counter()
    # The high-level class has no parameter for the number of sequences; its defaults are changed in passing.
    defaults = llama_cpp.llama_context_default_params
    def with_sequences():
        parameters = defaults()
        parameters.n_seq_max, parameters.kv_unified = sequences, unified
        return parameters
    llama_cpp.llama_cpp.llama_context_default_params = with_sequences
    step = min(2048 if "long" in sys.argv[5:] else 512, max(prompt_tokens, sequences))
    model = llama_cpp.Llama(path, n_ctx=positions, n_batch=step, n_ubatch=step, n_threads=threads,
                            n_threads_batch=threads, flash_attn=flash, verbose=False)
    load_ms = (time.perf_counter() - loading) * 1e3
    draw = numpy.random.default_rng(int(seed))
    if kind != "start":
        measure(model, draw, prompt_tokens, sequences, 4)
    first_ms, rate = measure(model, draw, prompt_tokens, sequences, answer_tokens)
    if kind == "start":
        first_ms = (time.perf_counter() - loading) * 1e3
    print(json.dumps(dict(first_token_ms=round(first_ms, 2), tokens_per_s=round(rate, 2), load_ms=round(load_ms, 1),
                          resident_mib=round(resident_mib(), 1))))


if __name__ == "__main__":
    main()
