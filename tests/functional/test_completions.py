"""Text completions of the real model, through the real client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from conversation import MODEL, client_of

if TYPE_CHECKING:
    from openai.types import Completion

COUNTING = "One, two, three, four, five,"


def complete(url: str, prompt: Any = COUNTING, **wishes: Any) -> Completion:
    """A greedy completion of 8 tokens, unless the wishes say otherwise."""
    arguments: dict[str, Any] = {"temperature": 0, "max_tokens": 8} | wishes
    with client_of(url) as client:
        completion: Completion = client.completions.create(model=MODEL, prompt=prompt, **arguments)
    return completion


def test_a_prompt_is_continued(server: str) -> None:
    """No template gets between the prompt and its continuation."""
    completion = complete(server)
    assert completion.choices[0].text.startswith(" six, seven")
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8


def test_prompts_are_answered_as_each_alone(server: str) -> None:
    """In their order, with as many choices each; the usage counts all of them."""
    other = "The capital of France is"
    alone = [complete(server, prompt) for prompt in (COUNTING, other)]
    together = complete(server, [COUNTING, other], n=2)
    texts = [each.choices[0].text for each in alone]
    assert [choice.text for choice in together.choices] == [texts[0]] * 2 + [texts[1]] * 2
    assert [choice.index for choice in together.choices] == [0, 1, 2, 3]
    assert together.usage is not None
    counted = [each.usage.prompt_tokens for each in alone if each.usage]
    assert together.usage.prompt_tokens == sum(counted)
    assert together.usage.completion_tokens == 32


def test_token_ids_are_a_prompt(server: str) -> None:
    """A list of ids, or several: each is continued as the text that it stands for."""
    with client_of(server) as client:
        told: Any = client.post("/tokenize", cast_to=object, body={"content": COUNTING})
    ids, text = told["tokens"], complete(server).choices[0].text
    one = complete(server, ids)
    several = complete(server, [ids, ids[:1]], echo=True)
    assert one.choices[0].text == text
    assert several.choices[0].text == COUNTING + text
    assert several.choices[1].text.startswith("One")


def test_echo_begins_with_the_prompt(server: str) -> None:
    plain = complete(server)
    assert complete(server, echo=True).choices[0].text == COUNTING + plain.choices[0].text


def test_a_stream_gives_the_same_text(server: str) -> None:
    """Joined by index, with a reason for each, and the usage if asked for."""
    prompts = [COUNTING, "The capital of France is"]
    whole = complete(server, prompts, stop=[",", "."])
    texts, reasons, usage = ["", ""], ["", ""], None
    with client_of(server) as client:
        stream = client.completions.create(
            model=MODEL,
            prompt=prompts,
            stop=[",", "."],
            temperature=0,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                reasons[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert whole.usage is not None
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_log_probabilities_fit_the_text(server: str) -> None:
    """Tokens, their chances and their places in the text."""
    choice = complete(server, logprobs=3).choices[0]
    logprobs = choice.logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or ()) == choice.text
    for token, offset in zip(logprobs.tokens or (), logprobs.text_offset or (), strict=True):
        assert choice.text[offset:].startswith(token)
    for value, top in zip(logprobs.token_logprobs or (), logprobs.top_logprobs or (), strict=True):
        assert max(top.values()) == value <= 0
        assert len(top) == 3


@pytest.mark.parametrize(
    ("prompt", "wishes", "field"),
    (
        ("", {}, "prompt"),
        ([49152], {}, "prompt"),
        ([2**31 - 1], {"echo": True}, "prompt"),
        ("x", {"suffix": "y"}, "suffix"),
        ("x", {"n": 9}, "n"),
        ("x", {"max_tokens": 9000}, "prompt"),
    ),
)
def test_a_wrong_field_is_400_and_named(
    server: str, prompt: Any, wishes: dict[str, Any], field: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        complete(server, prompt, **wishes)
    assert raised.value.param == field
