"""One workload of OpenVINO GenAI, measured as `crates/engine/examples/bench.rs` measures this engine; prints JSON.

Usage: peer_openvino.py MODEL THREADS WORKLOAD SEED [sdpa]

By default its pipeline with continuous batching and paged attention runs; `sdpa` is the other that it has, for one
sequence at a time.
"""

import json
import sys
import time

import numpy
import openvino
import openvino_genai

from single import resident_mib, shape


def tokens(draw, count):
    # Ids that every vocabulary has and that are no control tokens.
    return openvino.Tensor(draw.integers(100, 40000, (1, count)).astype(numpy.int64))


def configuration(answer_tokens):
    wanted = openvino_genai.GenerationConfig()
    wanted.max_new_tokens, wanted.ignore_eos, wanted.do_sample = answer_tokens, True, False
    return wanted


class Paged:
    def __init__(self, path, properties, prompt_tokens, sequences):
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = max(256, min(prompt_tokens * sequences, 2048))
        scheduler.enable_prefix_caching = False
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", properties)
        self.requests = 0

    def measure(self, prompts, answer_tokens):
        """The time to the last first token, and the tokens a second while every answer ran."""
        started = time.perf_counter()
        handles = []
        for prompt in prompts:
            handles.append(self.pipeline.add_request(self.requests, prompt, configuration(answer_tokens)))
            self.requests += 1
        counts, first, last = [0] * len(handles), None, started
        at_first = at_last = 0
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            now = time.perf_counter()
            for at, handle in enumerate(handles):
                while handle.can_read():
                    counts[at] += sum(len(output.generated_ids) for output in handle.read().values())
            if first is None and min(counts) > 0:
                first, at_first = now, sum(counts)
            if max(counts) >= answer_tokens and not at_last:
                last, at_last = now, sum(counts)
        rate = (at_last - at_first) / (last - first) if at_last > at_first else 0.0
        return (first - started) * 1e3, rate


class Sdpa:
    def __init__(self, path, properties, *_):
        self.pipeline = openvino_genai.LLMPipeline(path, "CPU", ATTENTION_BACKEND="SDPA", **properties)

    def measure(self, prompts, answer_tokens):
        times = []

        class Stamps(openvino_genai.StreamerBase):
            def write(self, _):
                times.append(time.perf_counter())
                return openvino_genai.StreamingStatus.RUNNING

            def end(self):
                pass

        started = time.perf_counter()
        self.pipeline.generate(prompts[0], configuration(answer_tokens), Stamps())
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
        return (times[0] - started) * 1e3, rate


def main():
    path, threads, workload, seed = sys.argv[1:5]
    kind, prompt_tokens, sequences, answer_tokens = shape(workload)
    pipeline = Sdpa if "sdpa" in sys.argv[5:] else Paged
    if pipeline is Sdpa and sequences > 1:
        return print(json.dumps(dict(cannot="runs one sequence at a time")))
    loading = time.perf_counter()
    engine = pipeline(path, dict(INFERENCE_NUM_THREADS=int(threads)), prompt_tokens, sequences)
    load_ms = (time.perf_counter() - loading) * 1e3
    draw = numpy.random.default_rng(int(seed))
    prompts = lambda: [tokens(draw, prompt_tokens) for _ in range(sequences)]
    if kind != "start":
        engine.measure(prompts(), 4)
    first_ms, rate = engine.measure(prompts(), answer_tokens)
    if kind == "start":
        first_ms = (time.perf_counter() - loading) * 1e3
    print(json.dumps(dict(first_token_ms=round(first_ms, 2), tokens_per_s=round(rate, 2), load_ms=round(load_ms, 1),
                          resident_mib=round(resident_mib(), 1))))


if __name__ == "__main__":
    main()
