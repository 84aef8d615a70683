from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from dovecote_engine.errors import BadRequest
from dovecote_engine.isolation import Fault
from dovecote_engine.request import Sampling
from dovecote_engine.sampler import RowSampler, sample, validate

GREEDY = Sampling(temperature=0.0)


def _logits(rows: int, vocabulary: int = 50) -> mx.array:
    return mx.random.normal((rows, vocabulary), key=mx.random.key(5))


@pytest.mark.parametrize(
    ("sampling", "field"),
    (
        (Sampling(temperature=-0.1), "temperature"),
        (Sampling(temperature=2.1), "temperature"),
        (Sampling(temperature=math.nan), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(top_p=1.1), "top_p"),
        (Sampling(top_p=math.nan), "top_p"),
        (Sampling(seed=1 << 64), "seed"),
        (Sampling(seed=-(1 << 63) - 1), "seed"),
    ),
)
def test_a_number_out_of_its_range_is_named(sampling: Sampling, field: str) -> None:
    """The error says which field the caller has to change."""
    with pytest.raises(BadRequest) as raised:
        validate(sampling)
    assert raised.value.field == field


@pytest.mark.parametrize("seed", (0, -1, -(1 << 63), (1 << 64) - 1))
def test_every_seed_of_64_bits_is_allowed(seed: int) -> None:
    """Negative and unsigned seeds are both numbers of 64 bits."""
    validate(Sampling(seed=seed))
    assert isinstance(sample(_logits(1), [RowSampler(Sampling(seed=seed))])[0], int)


def test_temperature_zero_takes_the_likeliest() -> None:
    """Greedy rows are the argmax, also beside rows that draw."""
    logits = _logits(3)
    samplers = [RowSampler(GREEDY), RowSampler(Sampling(seed=1)), RowSampler(GREEDY)]
    tokens = sample(logits, samplers)
    wanted = np.array(mx.argmax(logits, axis=-1))
    assert (tokens[0], tokens[2]) == (wanted[0], wanted[2])


def test_a_seed_draws_the_same_tokens_in_any_batch() -> None:
    """What a row draws does not depend on its neighbours or its place."""
    logits = _logits(1)
    alone = RowSampler(Sampling(seed=7, top_p=0.9))
    wanted = [sample(logits, [alone])[0] for _ in range(20)]
    batched, other = RowSampler(Sampling(seed=7, top_p=0.9)), RowSampler(Sampling(seed=8))
    both = mx.concatenate([_logits(2)[1:], logits])
    assert [sample(both, [other, batched])[1] for _ in range(20)] == wanted
    assert len(set(wanted)) > 1


def test_rows_without_a_seed_differ() -> None:
    """Two unseeded rows over the same logits go different ways."""
    logits = mx.zeros((1, 1000))
    one, other = RowSampler(Sampling()), RowSampler(Sampling())
    assert [sample(logits, [one]) for _ in range(8)] != [sample(logits, [other]) for _ in range(8)]


def test_top_p_keeps_the_likeliest_tokens_that_reach_it() -> None:
    """With 0.5, 0.3 and 0.2, a top_p of 0.6 leaves the first two."""
    logits = mx.log(mx.array([[0.3, 0.5, 0.2]]))
    sampler = RowSampler(Sampling(top_p=0.6, seed=3))
    drawn = {sample(logits, [sampler])[0] for _ in range(60)}
    assert drawn == {0, 1}


def test_a_tiny_top_p_is_greedy() -> None:
    """The likeliest token is always kept."""
    logits = _logits(1)
    sampler = RowSampler(Sampling(top_p=1e-9, temperature=2.0, seed=3))
    drawn = {sample(logits, [sampler])[0] for _ in range(10)}
    assert drawn == {mx.argmax(logits).item()}


def test_a_low_temperature_sharpens() -> None:
    """Near zero, drawing is greedy."""
    logits = _logits(1)
    sampler = RowSampler(Sampling(temperature=1e-3, seed=3))
    assert {sample(logits, [sampler])[0] for _ in range(10)} == {mx.argmax(logits).item()}


@pytest.mark.parametrize("bad", (math.nan, math.inf))
@pytest.mark.parametrize("place", (0, 17, 49))
def test_a_row_that_is_not_finite_is_a_fault_of_its_own(bad: float, place: int) -> None:
    """NaN in one row's logits leaves the other rows alone."""
    logits = _logits(3)
    wanted = np.array(mx.argmax(logits, axis=-1))
    logits[1, place] = bad
    tokens = sample(logits, [RowSampler(GREEDY)] * 3)
    assert isinstance(tokens[1], Fault)
    assert (tokens[0], tokens[2]) == (wanted[0], wanted[2])
