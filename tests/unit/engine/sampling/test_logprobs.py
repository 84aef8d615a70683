from __future__ import annotations

import math

import mlx.core as mx
import pytest

from dovecote_engine.isolation import Fault
from dovecote_engine.request import RankedToken, Sampling
from dovecote_engine.sampling.logprobs import Ranking, named
from dovecote_engine.sampling.sampler import RowSampler, sample

CHANCES = [0.1, 0.4, 0.2, 0.3]
LOGITS = mx.log(mx.array([CHANCES])) + 5.0
"""The probabilities of a softmax do not depend on what is added to all logits."""


def _ranking(sampling: Sampling, top: int) -> tuple[int, Ranking]:
    (sampled,) = sample(LOGITS, [RowSampler(sampling, top_logprobs=top)])
    assert not isinstance(sampled, Fault)
    assert sampled.ranking is not None
    return sampled.token, sampled.ranking


def test_the_likeliest_are_ranked_best_first() -> None:
    token, ranking = _ranking(Sampling(temperature=0.0), 3)
    assert token == 1
    assert ranking.logprob == pytest.approx(math.log(0.4), abs=1e-5)
    assert [each for each, _ in ranking.top] == [1, 3, 2]
    assert [value for _, value in ranking.top] == pytest.approx(
        [math.log(chance) for chance in (0.4, 0.3, 0.2)], abs=1e-5
    )


@pytest.mark.parametrize("top", (0, 1, 4))
def test_as_many_are_ranked_as_were_asked_for(top: int) -> None:
    """None, some or the whole vocabulary."""
    assert len(_ranking(Sampling(temperature=0.0), top)[1].top) == top


@pytest.mark.parametrize(
    "sampling",
    (
        Sampling(temperature=2.0, seed=1),
        Sampling(temperature=0.01, seed=1),
        Sampling(top_k=1, seed=1),
        Sampling(top_p=0.1, seed=1),
        Sampling(temperature=0.0, logit_bias=((0, 100.0),)),
    ),
    ids=str,
)
def test_log_probabilities_are_the_model_s_own(sampling: Sampling) -> None:
    """Nothing that sampling does to the logits changes them."""
    token, ranking = _ranking(sampling, 4)
    assert ranking.logprob == pytest.approx(math.log(CHANCES[token]), abs=1e-5)
    assert dict(ranking.top)[token] == ranking.logprob


def test_rows_that_do_not_ask_get_none() -> None:
    """Beside a row that asks, another one costs and gets nothing."""
    logits = mx.concatenate([LOGITS, LOGITS])
    asks, does_not = RowSampler(Sampling(0.0), top_logprobs=1), RowSampler(Sampling(0.0))
    first, second = sample(logits, [asks, does_not])
    assert not isinstance(first, Fault)
    assert not isinstance(second, Fault)
    assert first.ranking is not None
    assert second.ranking is None


def test_the_impossible_has_a_finite_log_probability() -> None:
    """JSON has no infinity."""
    logits = mx.array([[0.0, -math.inf]])
    (sampled,) = sample(logits, [RowSampler(Sampling(0.0), top_logprobs=2)])
    assert not isinstance(sampled, Fault)
    assert sampled.ranking is not None
    assert sampled.ranking.top == ((0, 0.0), (1, -9999.0))


def test_tokens_get_their_bytes() -> None:
    told = named(65, Ranking(-0.5, ((66, -0.25), (65, -0.5))), lambda token: bytes([token]))
    assert told.chosen == RankedToken(65, b"A", -0.5)
    assert told.top == (RankedToken(66, b"B", -0.25), RankedToken(65, b"A", -0.5))
