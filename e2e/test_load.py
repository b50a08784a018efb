"""Many clients at once: the same bytes as when idle, and a place that is free as soon as its client is gone."""

import asyncio
import time

from service import REFERENCE

LONG = dict(max_tokens=900, extra_body={"ignore_eos": True})
PROMPTS = [prompt["text"] for prompt in REFERENCE["prompts"][:16]]


async def stream_all(service, prompts, **options):
    client = service.new_async_client()

    async def one(prompt):
        stream = await client.completions.create(
            model=service.model, prompt=prompt, temperature=0, max_tokens=40, stream=True, **options)
        return "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])

    return await asyncio.gather(*map(one, prompts))


def test_sixteen_streams_at_once_give_the_bytes_that_each_gives_alone(service):
    alone = [service.complete(prompt, max_tokens=40).choices[0].text for prompt in PROMPTS]
    for _ in range(2):
        assert asyncio.run(stream_all(service, PROMPTS)) == alone


def test_sampled_answers_with_a_seed_do_not_depend_on_load_either(service):
    options = dict(temperature=1, max_tokens=32, seed=11, top_p=0.9, presence_penalty=0.5)
    alone = service.complete(**options).choices[0].text

    async def under_load():
        load = asyncio.create_task(stream_all(service, PROMPTS[:8]))
        await asyncio.sleep(0.05)
        client = service.new_async_client()
        answer = await client.completions.create(model=service.model, prompt="The capital of France is", **options)
        await load
        return answer.choices[0].text

    assert asyncio.run(under_load()) == alone


def test_a_client_that_hangs_up_frees_its_place_within_a_step(service):
    service.wait_metric("tureen_requests_running", 0)
    cancelled = service.metric("tureen_sequences_cancelled_total")
    stream = service.complete("Once upon a time", stream=True, **LONG)
    for _, chunk in zip(range(5), stream):
        assert chunk.choices[0].finish_reason is None
    assert service.metric("tureen_requests_running") == 1
    steps = service.metric("tureen_steps_total")
    stream.close()
    service.wait_metric("tureen_requests_running", 0, seconds=2)
    # Each look at the metrics takes a step's time or so: a handful is all that may have passed, of hundreds.
    assert service.metric("tureen_steps_total") - steps < 20
    assert service.metric("tureen_sequences_cancelled_total") == cancelled + 1
    settled = service.metric("tureen_steps_total")
    time.sleep(0.3)
    assert service.metric("tureen_steps_total") == settled, "the engine works for nobody"


def test_a_client_that_hangs_up_while_waiting_is_forgotten(start):
    service = start("--context", 1024, "--sequences-max", 1)
    running = service.complete("Once upon a time", stream=True, **LONG)
    next(iter(running))
    waiting = service.complete("Once upon a time", stream=True, **LONG)
    service.wait_metric("tureen_requests_waiting", 1)
    waiting.close()
    service.wait_metric("tureen_requests_waiting", 0, seconds=2)
    running.close()
    service.wait_metric("tureen_requests_running", 0, seconds=2)


def test_the_next_in_the_queue_begins_when_a_client_hangs_up(start):
    service = start("--context", 1024, "--sequences-max", 1)
    long = service.complete("Once upon a time", stream=True, **LONG)
    next(iter(long))

    async def next_in_line():
        task = asyncio.create_task(stream_all(service, PROMPTS[:1]))
        await asyncio.sleep(0.3)
        assert not task.done(), "there is but one place"
        started = time.monotonic()
        long.close()
        await task
        return time.monotonic() - started

    assert asyncio.run(next_in_line()) < 10
