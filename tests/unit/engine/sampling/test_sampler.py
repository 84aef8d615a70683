from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from dovecote_engine.isolation import Fault
from dovecote_engine.request import Sampling
from dovecote_engine.sampling.sampler import RowSampler, _nucleus, sample

GREEDY = Sampling(temperature=0.0)


def _logits(rows: int, vocabulary: int = 50) -> mx.array:
    return mx.random.normal((rows, vocabulary), key=mx.random.key(5))


def _tokens(logits: mx.array, *samplers: RowSampler) -> list[int]:
    tokens = []
    for sampled in sample(logits, samplers):
        assert not isinstance(sampled, Fault)
        tokens.append(sampled.token)
    return tokens


def _drawn(logits: mx.array, sampling: Sampling, count: int = 60) -> set[int]:
    sampler = RowSampler(sampling)
    return {_tokens(logits, sampler)[0] for _ in range(count)}


def _likeliest(logits: mx.array) -> list[int]:
    return [int(token) for token in np.array(mx.argmax(logits, axis=-1))]


@pytest.mark.parametrize("seed", (0, -1, -(1 << 63), (1 << 64) - 1))
def test_every_seed_of_64_bits_draws(seed: int) -> None:
    """Negative and unsigned seeds are both numbers of 64 bits."""
    assert len(_tokens(_logits(1), RowSampler(Sampling(seed=seed)))) == 1


def test_temperature_zero_takes_the_likeliest() -> None:
    """Greedy rows are the argmax, also beside rows that draw."""
    logits = _logits(3)
    samplers = [RowSampler(GREEDY), RowSampler(Sampling(seed=1)), RowSampler(GREEDY)]
    tokens, wanted = _tokens(logits, *samplers), _likeliest(logits)
    assert (tokens[0], tokens[2]) == (wanted[0], wanted[2])


def test_a_seed_draws_the_same_tokens_in_any_batch() -> None:
    """What a row draws does not depend on its neighbours or its place."""
    logits = _logits(1)
    alone = RowSampler(Sampling(seed=7, top_p=0.9))
    wanted = [_tokens(logits, alone)[0] for _ in range(20)]
    batched, other = RowSampler(Sampling(seed=7, top_p=0.9)), RowSampler(Sampling(seed=8))
    both = mx.concatenate([_logits(2)[1:], logits])
    assert [_tokens(both, other, batched)[1] for _ in range(20)] == wanted
    assert len(set(wanted)) > 1


def test_rows_without_a_seed_differ() -> None:
    """Two unseeded rows over the same logits go different ways."""
    logits = mx.zeros((1, 1000))
    one, other = RowSampler(Sampling()), RowSampler(Sampling())
    assert [_tokens(logits, one) for _ in range(8)] != [_tokens(logits, other) for _ in range(8)]


def test_choices_of_one_seed_draw_different_tokens_and_the_same_ones_again() -> None:
    """Each choice has a random stream of its own that its seed and number decide."""

    def draws(choice: int) -> list[int]:
        sampler = RowSampler(Sampling(seed=4), choice=choice)
        return [_tokens(mx.zeros((1, 1000)), sampler)[0] for _ in range(8)]

    assert len({tuple(draws(choice)) for choice in range(16)}) == 16
    assert draws(3) == draws(3)


def test_top_p_keeps_the_likeliest_tokens_that_reach_it() -> None:
    """With 0.5, 0.3 and 0.2, a top_p of 0.6 leaves the first two."""
    logits = mx.log(mx.array([[0.3, 0.5, 0.2]]))
    assert _drawn(logits, Sampling(top_p=0.6, seed=3)) == {0, 1}


@pytest.mark.parametrize("scale", (0.0, 0.2, 4.0))
@pytest.mark.parametrize("top_p", (0.2, 0.9, 0.999))
def test_a_nucleus_is_the_same_in_a_large_vocabulary(scale: float, top_p: float) -> None:
    """Flat or steep: the kept tokens are the shortest beginning of the sorted ones that reaches it.

    A flat row has more of them than are looked at first.
    """
    logits = mx.random.normal((5000,), key=mx.random.key(5)) * scale + mx.arange(5000) * 1e-4
    kept = np.isfinite(np.array(_nucleus(logits, top_p)))
    ordered = np.sort(np.array(mx.softmax(logits), np.float64))[::-1]
    wanted = int(np.searchsorted(np.cumsum(ordered), top_p)) + 1
    assert abs(int(kept.sum()) - wanted) <= 1 + wanted // 500
    assert np.array(logits)[kept].min() >= np.array(logits)[~kept].max()


def test_a_tiny_top_p_is_greedy() -> None:
    """The likeliest token is always kept."""
    logits = _logits(1)
    drawn = _drawn(logits, Sampling(top_p=1e-9, temperature=2.0, seed=3))
    assert drawn == {*_likeliest(logits)}


def test_a_low_temperature_sharpens() -> None:
    """Near zero, drawing is greedy."""
    logits = _logits(1)
    assert _drawn(logits, Sampling(temperature=1e-3, seed=3)) == {*_likeliest(logits)}


def test_top_k_keeps_that_many() -> None:
    """Equal logits or not, no more than top_k tokens are ever drawn, the likeliest among them."""
    logits = mx.log(mx.array([[0.3, 0.1, 0.4, 0.2]]))
    assert _drawn(logits, Sampling(top_k=2, temperature=2.0, seed=3)) == {0, 2}
    assert len(_drawn(mx.zeros((1, 30)), Sampling(top_k=3, seed=3), 100)) == 3


def test_top_p_is_of_what_top_k_leaves() -> None:
    """0.4 is less than half of everything and more than half of the two likeliest."""
    logits = mx.log(mx.array([[0.3, 0.4, 0.2, 0.1]]))
    assert _drawn(logits, Sampling(top_k=2, top_p=0.5, seed=3)) == {1}
    assert _drawn(logits, Sampling(top_p=0.5, seed=3)) == {0, 1}


def test_min_p_keeps_what_is_near_the_likeliest() -> None:
    """Half as likely as the likeliest is 0.25 here."""
    logits = mx.log(mx.array([[0.3, 0.5, 0.2]]))
    assert _drawn(logits, Sampling(min_p=0.5, seed=3)) == {0, 1}
    assert _drawn(logits, Sampling(min_p=1.0, seed=3)) == {1}


def test_min_p_is_measured_after_the_temperature() -> None:
    """Heat brings the others nearer to the likeliest."""
    logits = mx.log(mx.array([[0.3, 0.5, 0.2]]))
    assert _drawn(logits, Sampling(temperature=2.0, min_p=0.6, seed=3)) == {0, 1, 2}


def test_a_drawing_row_costs_its_greedy_neighbours_nothing() -> None:
    """Only what asks for more than the likeliest token leaves the common argmax."""
    plain = RowSampler(Sampling(temperature=0.0, top_k=3, top_p=0.5, min_p=0.5, seed=1))
    assert plain.is_plain
    assert not RowSampler(Sampling(temperature=0.0, presence_penalty=1.0)).is_plain
    assert not RowSampler(Sampling(temperature=0.0, logit_bias=((1, 1.0),))).is_plain
    assert not RowSampler(GREEDY, top_logprobs=0).is_plain
    assert not RowSampler(Sampling()).is_plain


@pytest.mark.parametrize("bad", (math.nan, math.inf))
@pytest.mark.parametrize("place", (0, 17, 49))
def test_a_row_that_is_not_finite_is_a_fault_of_its_own(bad: float, place: int) -> None:
    """NaN in one row's logits leaves the other rows alone."""
    logits = _logits(3)
    wanted = _likeliest(logits)
    logits[1, place] = bad
    first, second, third = sample(logits, [RowSampler(GREEDY)] * 3)
    assert isinstance(second, Fault)
    assert not isinstance(first, Fault)
    assert not isinstance(third, Fault)
    assert (first.token, third.token) == (wanted[0], wanted[2])
