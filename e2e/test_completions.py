"""Text completions through the official Python client, checked against llama.cpp's own greedy answers."""

import openai
import pytest

from service import REFERENCE

PROMPT = REFERENCE["prompts"][0]
FIRST = REFERENCE["variants"]["Q4_1"]["greedy"][0]["first"]


def test_a_completion_has_the_shape_that_clients_parse(service):
    answer = service.complete()
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert "Paris" in answer.choices[0].text and answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == len(PROMPT["tokens"]) and answer.usage.completion_tokens == 16


def test_a_prompt_may_be_text_or_tokens_or_several_of_either(service):
    text = service.complete().choices[0].text
    assert service.complete(PROMPT["tokens"]).choices[0].text == text
    for several in ([PROMPT["text"], "1, 2, 3,"], [PROMPT["tokens"], PROMPT["tokens"][:3]]):
        answer = service.complete(several)
        assert [choice.index for choice in answer.choices] == [0, 1] and answer.choices[0].text == text


def test_several_choices_for_several_prompts_are_numbered_by_prompt(service):
    answer = service.complete(["1, 2, 3,", "The sky is"], n=2, temperature=1, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_streaming_gives_the_same_text(service):
    chunks = list(service.complete(stream=True, stream_options={"include_usage": True}))
    whole = service.complete()
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
def test_echo_repeats_the_prompt(service, stream):
    answer = service.complete(echo=True, stream=stream)
    text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
    assert text == PROMPT["text"] + service.complete().choices[0].text


def test_echo_with_logprobs_scores_the_prompt(service):
    answer = service.complete(echo=True, logprobs=3, max_tokens=1)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(PROMPT["tokens"]) + 1
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert all(len(top) >= 3 for top in logprobs.top_logprobs[1:])
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert [answer.choices[0].text[offset:].startswith(token)
            for offset, token in zip(logprobs.text_offset, logprobs.tokens)] == [True] * len(logprobs.tokens)


def test_only_the_prompt_can_be_scored(service):
    answer = service.complete(echo=True, logprobs=1, max_tokens=0)
    assert answer.choices[0].text == PROMPT["text"] and answer.usage.completion_tokens == 0


def test_a_bias_forbids_and_forces_tokens(service):
    whole = service.complete().choices[0].text
    assert service.complete(logit_bias={str(FIRST[0]): -100}).choices[0].text != whole
    forced = service.complete(logit_bias={str(FIRST[0]): 100}, max_tokens=4, logprobs=0).choices[0].logprobs.tokens
    assert forced == [service.complete(max_tokens=1).choices[0].text] * 4


def test_a_stop_text_ends_the_completion(service):
    answer = service.complete(stop="Paris")
    assert "Paris" not in answer.choices[0].text and answer.choices[0].finish_reason == "stop"


def test_what_is_not_supported_is_refused_and_not_ignored(service):
    for option in (dict(suffix="!"), dict(best_of=3)):
        with pytest.raises(openai.BadRequestError):
            service.complete(**option)
