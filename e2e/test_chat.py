"""Chat completions through the official Python client: each parameter, streaming and not."""

import json

import pytest

from service import KEY


def text_of(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_an_answer_has_the_shape_that_clients_parse(service):
    answer = service.chat()
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.model == service.model and answer.created > 1_600_000_000
    [choice] = answer.choices
    assert choice.index == 0 and choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length"
    usage = answer.usage
    assert usage.completion_tokens == 32 and usage.prompt_tokens > 10
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_model_that_is_done_says_stop(service):
    # A question whose first word is no near tie: with one, instruction sets begin different answers.
    answer = service.chat("What is the capital city of the country of France?", max_tokens=200)
    assert answer.choices[0].finish_reason == "stop"
    assert "Paris" in answer.choices[0].message.content and "<|im_end|>" not in answer.choices[0].message.content


def test_streaming_gives_the_same_text(service):
    whole = service.chat().choices[0].message.content
    chunks = list(service.chat(stream=True))
    assert chunks[0].object == "chat.completion.chunk" and chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert text_of(chunks) == whole
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == "length" and not any(reasons[:-1])
    assert len(chunks) > 10, "tokens must come one by one"


def test_streamed_usage_comes_last_if_asked_for(service):
    whole = service.chat()
    *chunks, last = service.chat(stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_is_server_sent_events_that_end_with_done(service):
    body = {"model": service.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True}
    status, headers, answer = service.post("/v1/chat/completions", body)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    *events, done, rest = answer.decode().split("\n\n")
    assert done == "data: [DONE]" and rest == ""
    assert all(json.loads(event.removeprefix("data: "))["id"] for event in events)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_length_is_limited(service, name):
    answer = service.client.chat.completions.create(
        model=service.model, messages=[{"role": "user", "content": "Why is the sky blue?"}], **{name: 7})
    assert answer.usage.completion_tokens == 7 and answer.choices[0].finish_reason == "length"


def test_n_gives_several_choices(service):
    answer = service.chat(n=3, temperature=1, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens == 3 * 32


def test_n_streams_several_choices(service):
    texts = {0: "", 1: ""}
    for chunk in service.chat(n=2, temperature=0, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts[0] == texts[1] == service.chat().choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_a_stop_text_over_token_borders_ends_the_answer_before_it(service, stream, several):
    whole = service.chat().choices[0].message.content
    stop = whole[17:24]
    expected = whole[:whole.index(stop)]
    answer = service.chat(stop=["@@never@@", stop] if several else stop, stream=stream)
    if stream:
        chunks = list(answer)
        assert text_of(chunks) == expected and chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert answer.choices[0].message.content == expected and answer.choices[0].finish_reason == "stop"


def test_a_stop_text_that_never_comes_changes_nothing(service):
    whole = service.chat().choices[0].message.content
    assert service.chat(stop=whole[-6:] + "#").choices[0].message.content == whole


def test_a_seed_makes_an_answer_reproducible(service):
    def answer(seed):
        return service.chat(temperature=1, seed=seed).choices[0].message.content

    assert answer(7) == answer(7)
    assert len({answer(seed) for seed in range(4)}) > 1
    assert len({answer(None) for _ in range(4)}) > 1


def test_a_tiny_top_p_is_greedy(service):
    assert (service.chat(temperature=1, top_p=1e-6, seed=3).choices[0].message.content
            == service.chat().choices[0].message.content)


def test_logprobs_describe_each_token(service):
    answer = service.chat(logprobs=True, top_logprobs=4)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 4
        likeliest = [other.logprob for other in token.top_logprobs]
        assert likeliest == sorted(likeliest, reverse=True)
        assert token.token == token.top_logprobs[0].token and token.logprob == token.top_logprobs[0].logprob
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == answer.choices[0].message.content


def test_logprobs_without_alternatives(service):
    for token in service.chat(logprobs=True).choices[0].logprobs.content:
        assert token.top_logprobs == []
    assert service.chat().choices[0].logprobs is None


def test_streamed_logprobs_are_the_same(service):
    whole = service.chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    streamed = []
    for chunk in service.chat(logprobs=True, top_logprobs=2, stream=True):
        if chunk.choices and chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content or []
    assert streamed == whole


def test_a_frequency_penalty_avoids_repetition(service):
    def repeated(**options):
        answer = service.complete("apple apple apple apple apple", max_tokens=60, **options)
        words = answer.choices[0].text.split()
        return len(words) - len(set(words))

    assert repeated(frequency_penalty=2.0, presence_penalty=2.0) < repeated()


def test_content_may_come_in_parts_and_history_counts(service):
    parts = [{"type": "text", "text": "My name is "}, {"type": "text", "text": "Ada."}]
    messages = [{"role": "system", "content": "You answer in one sentence."}, {"role": "user", "content": parts},
                {"role": "assistant", "content": "Hello Ada."}, {"role": "user", "content": "What is my name?"}]
    answer = service.client.chat.completions.create(
        model=service.model, messages=messages, temperature=0, max_tokens=24)
    assert "Ada" in answer.choices[0].message.content


def test_what_does_not_change_the_answer_is_ignored(service):
    answer = service.chat(user="someone", metadata={"a": "b"}, store=False, parallel_tool_calls=False)
    assert answer.choices[0].message.content == service.chat().choices[0].message.content


def test_the_same_request_gives_the_same_answer_from_cold_and_warm_cache(service):
    first = service.chat("A question that no other test asks: what is a tureen?").choices[0].message.content
    assert all(service.chat("A question that no other test asks: what is a tureen?").choices[0].message.content == first
               for _ in range(3))


def test_text_outside_ascii_survives(service):
    answer = service.chat("Repeat exactly: héllo wörld 你好 🌍", max_tokens=40, stream=True)
    assert "\ufffd" not in text_of(answer)


def test_the_models_endpoint(service):
    [model] = service.client.models.list().data
    assert model.object == "model" and model.id == service.model
    assert service.client.models.retrieve(model.id).id == model.id


def test_health_and_readiness_need_no_key_and_metrics_do(service):
    assert KEY not in service.said()
    assert service.get("/health")[0] == 200 and service.get("/ready")[0] == 200
    assert service.get("/metrics")[0] == 401
    status, text = service.get("/metrics", KEY)
    assert status == 200 and "# TYPE" in text
