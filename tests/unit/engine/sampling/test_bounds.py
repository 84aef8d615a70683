from __future__ import annotations

import math
from typing import Any

import pytest

from dovecote_engine.errors import BadRequest
from dovecote_engine.request import Request, Sampling
from dovecote_engine.sampling.bounds import check

VOCABULARY = 50


def _check(sampling: Sampling | None = None, **fields: Any) -> None:
    check(Request("r", (1,), sampling=sampling or Sampling(), **fields), VOCABULARY)


@pytest.mark.parametrize(
    ("sampling", "field"),
    (
        (Sampling(temperature=-0.1), "temperature"),
        (Sampling(temperature=2.1), "temperature"),
        (Sampling(temperature=math.nan), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(top_p=1.1), "top_p"),
        (Sampling(top_p=math.nan), "top_p"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(top_k=VOCABULARY), "top_k"),
        (Sampling(min_p=-0.1), "min_p"),
        (Sampling(min_p=1.1), "min_p"),
        (Sampling(min_p=math.nan), "min_p"),
        (Sampling(presence_penalty=2.1), "presence_penalty"),
        (Sampling(frequency_penalty=-2.1), "frequency_penalty"),
        (Sampling(frequency_penalty=math.inf), "frequency_penalty"),
        (Sampling(repetition_penalty=0.0), "repetition_penalty"),
        (Sampling(repetition_penalty=math.nan), "repetition_penalty"),
        (Sampling(logit_bias=((VOCABULARY, 1.0),)), "logit_bias"),
        (Sampling(logit_bias=((-1, 1.0),)), "logit_bias"),
        (Sampling(logit_bias=((1, 100.1),)), "logit_bias"),
        (Sampling(logit_bias=((1, math.nan),)), "logit_bias"),
        (Sampling(seed=1 << 64), "seed"),
        (Sampling(seed=-(1 << 63) - 1), "seed"),
    ),
    ids=str,
)
def test_a_number_out_of_its_range_is_named(sampling: Sampling, field: str) -> None:
    """The error says which field the caller has to change."""
    with pytest.raises(BadRequest, match=field) as raised:
        _check(sampling)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    (
        ({"choices": 0}, "n"),
        ({"choices": 17}, "n"),
        ({"stop": ("",)}, "stop"),
        ({"stop": ("a", "b", "c", "d", "e")}, "stop"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ),
)
def test_a_wish_out_of_its_range_is_named(fields: dict[str, Any], field: str) -> None:
    """Choices, stops and log probabilities have bounds like numbers."""
    with pytest.raises(BadRequest) as raised:
        _check(**fields)
    assert raised.value.field == field


@pytest.mark.parametrize(
    "sampling",
    (
        Sampling(),
        Sampling(temperature=2.0, top_p=1.0, top_k=VOCABULARY - 1, min_p=1.0, seed=(1 << 64) - 1),
        Sampling(temperature=0.0, top_p=1e-9, top_k=0, min_p=0.0, seed=-(1 << 63)),
        Sampling(presence_penalty=-2, frequency_penalty=2, repetition_penalty=0.1),
        Sampling(logit_bias=((0, -100.0), (VOCABULARY - 1, 100.0))),
    ),
    ids=str,
)
def test_bounds_are_allowed(sampling: Sampling) -> None:
    """A number at its bound is within it."""
    _check(sampling, choices=16, stop=("a", "b", "c", "d"), top_logprobs=20)
