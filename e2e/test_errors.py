"""Errors arrive as the typed exceptions that the official client raises, and say what to do."""

import json

import openai
import pytest

from service import KEY


@pytest.mark.parametrize("option", [
    dict(temperature=-1), dict(temperature="warm"), dict(top_p=2), dict(top_p=-0.5), dict(n=0), dict(n=10_000),
    dict(max_tokens=-1), dict(max_tokens=1.5), dict(stop=["a"] * 100), dict(stop=7), dict(top_logprobs=3),
    dict(logprobs=True, top_logprobs=1000), dict(logit_bias={"a": 1}), dict(logit_bias={"5": 1000}), dict(presence_penalty=9), dict(frequency_penalty=-9), dict(seed="x"),
    dict(stream_options={"include_usage": True}), dict(stream="yes"),
    dict(response_format={"type": "nonsense"}), dict(extra_body={"guided_decoding": "x"}),
], ids=str)
def test_a_bad_parameter_is_named(service, option):
    with pytest.raises(openai.BadRequestError) as caught:
        service.chat(**option)
    # Where there are two, the second is wrong beside the first. An entry is named below its parameter.
    name = list(option.get("extra_body", option))[-1]
    assert caught.value.type == "invalid_request_error" and caught.value.message
    assert caught.value.param.split(".")[0] == name, caught.value.body


@pytest.mark.parametrize("messages", [
    [], "hello", [{"role": "user"}], [{"content": "x"}], [{"role": "martian", "content": "x"}], [7],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
    [{"role": "user", "content": {"a": 1}}],
], ids=str)
def test_bad_messages_are_refused(service, messages):
    with pytest.raises(openai.BadRequestError):
        service.client.chat.completions.create(model=service.model, messages=messages, max_tokens=1)


def test_an_unknown_model_is_not_found(service):
    with pytest.raises(openai.NotFoundError) as caught:
        service.client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found" and "gpt-9" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        service.client.models.retrieve("gpt-9")
    line = next(line for line in service.said().splitlines() if "gpt-9" in line)
    assert 'error="model_not_found" param="model"' in line and "peer=127.0.0.1:" in line, line


def test_an_unknown_path_is_not_found_and_a_wrong_method_is_said(service):
    status, _, body = service.post("/v1/nonsense", {})
    assert status == 404 and json.loads(body)["error"]["message"]
    status, body = service.get("/v1/chat/completions", KEY)
    assert status == 405 and "GET" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("key", ["wrong", KEY + "x", KEY[:-1]])
def test_a_wrong_key_is_refused(service, key):
    with pytest.raises(openai.AuthenticationError):
        service.chat(client=service.new_client(key))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Basic {KEY}", KEY])
def test_a_header_without_the_key_is_refused(service, header):
    status, _, body = service.post("/v1/chat/completions", {}, {"Authorization": header})
    assert status == 401 and json.loads(body)["error"]["code"] == "invalid_api_key"


def test_a_prompt_beyond_the_context_says_both_lengths(service):
    with pytest.raises(openai.BadRequestError) as caught:
        service.complete("word " * 3000)
    assert caught.value.code == "context_length_exceeded"
    assert "1024" in caught.value.message and "300" in caught.value.message
    with pytest.raises(openai.BadRequestError):
        service.chat("word " * 3000, stream=True)


def test_a_body_that_is_too_large_or_too_deep_is_refused(service):
    with pytest.raises(openai.APIStatusError) as caught:
        service.chat("x" * 17_000_000)
    assert caught.value.status_code == 413
    status, _, body = service.post("/v1/chat/completions", b"[" * 100_000 + b"]" * 100_000)
    assert status == 400 and json.loads(body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"model": "\\ud800"}', b'{"a":1}{"b":2}'])
def test_a_body_that_is_no_request_is_refused(service, body):
    status, _, answer = service.post("/v1/chat/completions", body)
    assert status == 400 and json.loads(answer)["error"]["message"]


def test_a_full_queue_is_refused_at_once_with_the_time_to_wait(start):
    service = start("--context", 512, "--sequences-max", 1, "--queue-max", 1)
    streams = [service.complete("a", max_tokens=400, stream=True, extra_body={"ignore_eos": True})]
    next(iter(streams[0]))
    answers = []
    for _ in range(3):
        try:
            streams.append(service.complete("a", max_tokens=400, stream=True))
        except openai.RateLimitError as error:
            answers.append(error)
        if answers:
            break
    [refused] = answers
    assert int(refused.response.headers["Retry-After"]) >= 1 and refused.status_code == 429
    for stream in streams:
        stream.close()
    service.wait_metric("tureen_requests_waiting", 0)
    assert service.complete(max_tokens=1).choices[0].text


def test_more_choices_than_the_queue_holds_are_answered_by_an_idle_server(start):
    service = start("--context", 256, "--sequences-max", 2, "--queue-max", 1)
    assert len(service.complete(n=8, max_tokens=3, temperature=1).choices) == 8


def test_an_answer_that_does_not_fit_beside_the_prompt_is_refused(service):
    with pytest.raises(openai.BadRequestError, match=r"context is \d+ tokens.* in the messages, 8190 in the completion"):
        service.chat(max_tokens=8190)


def test_a_prompt_far_beyond_the_context_is_refused_at_once(service):
    with pytest.raises(openai.BadRequestError) as caught:
        service.complete("hello " * 600_000)
    assert caught.value.code == "context_length_exceeded"
    # By its bytes: that it was not turned into tokens first is what makes it quick.
    assert "3600000 bytes long" in str(caught.value)


def test_echoes_together_are_bounded(service):
    with pytest.raises(openai.BadRequestError):
        service.complete("\ufdd0" * 60_000, echo=True, n=128, max_tokens=0)


@pytest.mark.parametrize("host, status", [("localhost", 200), ("127.0.0.1:1", 200), ("page.example", 403)])
def test_without_a_key_only_names_of_this_machine_are_answered_to(start, host, status):
    service = start("--context", 256, keys=None)
    body = {"model": service.model, "prompt": "a", "max_tokens": 1}
    assert service.post("/v1/completions", body, {"Host": host})[0] == status


def test_a_result_of_a_tool_needs_its_call(service):
    with pytest.raises(openai.BadRequestError) as caught:
        service.client.chat.completions.create(
            model=service.model, messages=[{"role": "tool", "tool_call_id": "1", "content": "x"}], max_tokens=1)
    assert "messages[0].tool_call_id" in str(caught.value)
