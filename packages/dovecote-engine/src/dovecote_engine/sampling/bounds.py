"""Holds what a request asks for to its bounds, before it has a row.

A number that no kernel expects must never reach one: a fault inside the batched evaluation would
cost every row. Does not know capacity, the pool or the model beyond its vocabulary's size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dovecote_engine.errors import BadRequest

if TYPE_CHECKING:
    from dovecote_engine.request import Request, Sampling

__all__ = ["MAX_CHOICES", "MAX_STOPS", "MAX_TOP_LOGPROBS", "check", "check_sampling"]

MAX_CHOICES = 16
MAX_STOPS = 4
MAX_TOP_LOGPROBS = 20
MAX_TEMPERATURE = 2.0
MAX_PENALTY = 2.0
MAX_BIAS = 100.0
# Beyond these a logit could leave the range of float32 in a few hundred tokens' time.
REPETITION_RANGE = (0.1, 10.0)
_SEED_MIN, _SEED_MAX = -(1 << 63), (1 << 64) - 1


def check(request: Request, vocabulary: int) -> None:
    """Passes a request whose every setting is within its bounds.

    Raises: BadRequest with the field's name, as clients call it, if one is not.
    """
    check_sampling(request.sampling, vocabulary)
    _within("n", request.choices, 1, MAX_CHOICES)
    if len(request.stop) > MAX_STOPS:
        raise BadRequest(f"at most {MAX_STOPS} stop strings", "stop")
    if "" in request.stop:
        raise BadRequest("a stop string must not be empty", "stop")
    if request.top_logprobs is not None:
        _within("top_logprobs", request.top_logprobs, 0, min(MAX_TOP_LOGPROBS, vocabulary))


def check_sampling(sampling: Sampling, vocabulary: int) -> None:
    """As `check`, for the sampling alone. A number that is no number is out of any bounds."""
    _within("temperature", sampling.temperature, 0, MAX_TEMPERATURE)
    if not 0.0 < sampling.top_p <= 1.0:
        raise BadRequest("top_p must be above 0 and at most 1", "top_p")
    _within("min_p", sampling.min_p, 0, 1)
    if not 0 <= sampling.top_k < vocabulary:
        raise BadRequest(f"top_k must be at least 0 and below {vocabulary}", "top_k")
    _within("presence_penalty", sampling.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
    _within("frequency_penalty", sampling.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
    _within("repetition_penalty", sampling.repetition_penalty, *REPETITION_RANGE)
    if sampling.seed is not None and not _SEED_MIN <= sampling.seed <= _SEED_MAX:
        raise BadRequest("seed must be an integer of 64 bits", "seed")
    for token, bias in sampling.logit_bias:
        if not 0 <= token < vocabulary:
            raise BadRequest(f"logit_bias: there is no token {token}", "logit_bias")
        _within("logit_bias", bias, -MAX_BIAS, MAX_BIAS)


def _within(field: str, number: float, least: float, most: float) -> None:
    if not least <= number <= most:
        raise BadRequest(f"{field} must be {least:g} to {most:g}", field)
