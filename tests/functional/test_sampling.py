"""Sampling, stops, choices and log probabilities of the real model, through the real client."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from conversation import MODEL, client_of
from metrics import metrics
from openai import BadRequestError

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

FRANCE = "What is the capital of France?"
END_OF_TURN = "2"
"""The id of `<|im_end|>`, which ends SmolLM2's answers."""


def complete(url: str, text: str = FRANCE, **wishes: Any) -> ChatCompletion:
    """A greedy completion of 16 tokens, unless the wishes say otherwise."""
    arguments: dict[str, Any] = {"temperature": 0, "max_tokens": 16} | wishes
    with client_of(url) as client:
        completion: ChatCompletion = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], **arguments
        )
    return completion


def text_of(completion: ChatCompletion, choice: int = 0) -> str:
    content = completion.choices[choice].message.content
    assert content is not None
    return content


def tokens_of(completion: ChatCompletion) -> list[str]:
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    return [each.token for each in logprobs.content]


def test_a_stop_ends_the_answer_before_it(server: str) -> None:
    """The text is the one without a stop, up to it; what was sampled is counted."""
    whole = complete(server, max_tokens=24)
    stop = text_of(whole)[8:11]
    cut = complete(server, max_tokens=24, stop=["never said", stop])
    assert text_of(cut) == text_of(whole).partition(stop)[0]
    assert cut.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert cut.usage is not None
    assert 0 < cut.usage.completion_tokens < whole.usage.completion_tokens


def test_a_streamed_stop_never_shows(server: str) -> None:
    """The pieces, joined, are the text of the answer in one piece."""
    stop = text_of(complete(server, max_tokens=24))[6:12]
    whole = complete(server, max_tokens=24, stop=stop)
    with client_of(server) as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": FRANCE}],
            temperature=0,
            max_tokens=24,
            stop=stop,
            stream=True,
        )
        chunks = [chunk.choices[0] for chunk in stream]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == text_of(whole)
    assert chunks[-1].finish_reason == "stop"


def test_choices_share_one_prefill(server: str) -> None:
    """The prompt is computed once for three choices; greedy ones are equal, drawn ones are not."""
    text = "Name a bird that lives in a tower, and say in one sentence why it does."
    before = metrics(server)["dovecote_prefilled_tokens_total"]
    drawn = complete(server, text, n=3, temperature=1.0, seed=5)
    computed = metrics(server)["dovecote_prefilled_tokens_total"] - before
    assert drawn.usage is not None
    assert drawn.usage.prompt_tokens_details is not None
    cached = drawn.usage.prompt_tokens_details.cached_tokens or 0
    assert computed == drawn.usage.prompt_tokens - cached
    assert [choice.index for choice in drawn.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in drawn.choices}) == 3
    greedy, single = complete(server, text, n=3), text_of(complete(server, text))
    assert {choice.message.content for choice in greedy.choices} == {single}


def test_streamed_choices_are_those_of_one_piece(server: str) -> None:
    """Joined by index, with the reason of each."""
    wishes: dict[str, Any] = {"n": 2, "temperature": 1.0, "seed": 11, "max_tokens": 12}
    whole = complete(server, **wishes)
    texts, reasons = ["", ""], ["", ""]
    with client_of(server) as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": FRANCE}], stream=True, **wishes
        )
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason or ""
    assert texts == [text_of(whole, 0), text_of(whole, 1)]
    assert reasons == [choice.finish_reason for choice in whole.choices]


def test_log_probabilities_are_those_of_the_text(server: str) -> None:
    """A greedy answer takes the likeliest token each time, and the tokens make up the text."""
    completion = complete(server, logprobs=True, top_logprobs=4)
    assert "".join(tokens_of(completion)) == text_of(completion)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    for each in logprobs.content or ():
        assert bytes(each.bytes or ()).decode() == each.token
        assert len(each.top_logprobs) == 4
        ranked = [rival.logprob for rival in each.top_logprobs]
        assert ranked == sorted(ranked, reverse=True)
        assert each.logprob == ranked[0] <= 0
        assert sum(map(math.exp, ranked)) <= 1 + 1e-3


def test_penalties_change_the_answer(server: str) -> None:
    """Positive ones lead elsewhere; negative ones, which reward, make the answer go in circles."""
    text = "Say the word dove, and nothing else, as often as you can."
    wishes: dict[str, Any] = {"max_tokens": 40, "logprobs": True}
    wishes["logit_bias"] = {END_OF_TURN: -100}
    plain = tokens_of(complete(server, text, **wishes))
    penalties: list[dict[str, Any]] = [
        {"frequency_penalty": 2},
        {"presence_penalty": 2},
        {"extra_body": {"repetition_penalty": 1.5}},
    ]
    for penalty in penalties:
        assert tokens_of(complete(server, text, **wishes, **penalty)) != plain
    for reward in ({"frequency_penalty": -2}, {"extra_body": {"repetition_penalty": 0.5}}):
        rewarded = tokens_of(complete(server, text, **wishes, **reward))
        assert 4 * len(set(rewarded)) < 3 * len(set(plain))


def test_a_bias_forces_and_bans_tokens(server: str) -> None:
    """With the end of turn banned the answer goes on; with it forced there is none."""
    assert complete(server, max_tokens=40).choices[0].finish_reason == "stop"
    banned = complete(server, max_tokens=40, logit_bias={END_OF_TURN: -100})
    assert banned.choices[0].finish_reason == "length"
    forced = complete(server, logit_bias={END_OF_TURN: 100})
    assert (text_of(forced), forced.choices[0].finish_reason) == ("", "stop")
    one_token = complete(server, logit_bias={"1000": 100}, logprobs=True)
    assert len(set(tokens_of(one_token))) == 1


@pytest.mark.parametrize(
    "wishes", ({"top_k": 1}, {"min_p": 1.0}, {"top_k": 40, "min_p": 0.99}), ids=str
)
def test_narrow_sampling_is_greedy(server: str, wishes: dict[str, Any]) -> None:
    """One token left to draw from is the likeliest, whatever the temperature."""
    narrow = complete(server, temperature=1.5, seed=2, extra_body=wishes)
    assert text_of(narrow) == text_of(complete(server))


def test_a_seed_holds_in_a_batch_of_mixed_rows(server: str) -> None:
    """Beside greedy, penalised and many-choiced rows each seeded answer is what it is alone."""
    asked: list[dict[str, Any]] = [
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.7, "seed": 2, "top_p": 0.9, "frequency_penalty": 0.5},
        {"temperature": 1.2, "seed": 3, "n": 2, "extra_body": {"top_k": 30}},
        {"temperature": 0, "presence_penalty": 1},
    ]
    alone = [complete(server, **wishes) for wishes in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda wishes: complete(server, **wishes), asked))
    for one, other in zip(alone, together, strict=True):
        texts = [[choice.message.content for choice in each.choices] for each in (one, other)]
        assert texts[0] == texts[1]


def test_a_bad_argument_harms_nobody_else(server: str) -> None:
    """A refused request leaves sampling as it was."""
    before = text_of(complete(server, temperature=1.0, seed=9))
    with client_of(server) as client:
        bad: list[dict[str, Any]] = [
            {"top_k": 10**6}, {"logit_bias": {"999999999": 1}}, {"min_p": 7},
        ]  # fmt: skip
        for wishes in bad:
            with pytest.raises(BadRequestError, match=next(iter(wishes))):
                client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "x"}], extra_body=wishes
                )
    assert text_of(complete(server, temperature=1.0, seed=9)) == before
