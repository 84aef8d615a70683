"""Chooses each row's next token from its logits.

A row draws from a random key of its own, split once a token: what it draws depends on its seed and
on how many tokens it drew before, never on the batch around it.

Does not know sequences, text or end-of-sequence tokens. Engine thread only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import mlx.core as mx

from dovecote_engine.errors import BadRequest
from dovecote_engine.isolation import Fault, isolated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.request import Sampling

MAX_TEMPERATURE = 2.0
_SEED_MASK = (1 << 64) - 1


def validate(sampling: Sampling) -> None:
    """Holds the sampling to its bounds.

    Raises: BadRequest with the field's name if a number is out of its range, or none at all.
    """
    if not 0.0 <= sampling.temperature <= MAX_TEMPERATURE:
        raise BadRequest(f"temperature must be 0 to {MAX_TEMPERATURE:g}", "temperature")
    if not 0.0 < sampling.top_p <= 1.0:
        raise BadRequest("top_p must be above 0 and at most 1", "top_p")
    if sampling.seed is not None and not -(1 << 63) <= sampling.seed <= _SEED_MASK:
        raise BadRequest("seed must be an integer of 64 bits", "seed")


def _nucleus(logits: mx.array, top_p: float) -> mx.array:
    """The logits [V] of the likeliest tokens whose probabilities reach top_p; -inf elsewhere."""
    probabilities = mx.softmax(logits)
    ordered = -mx.sort(-probabilities)
    before = mx.cumsum(ordered, inclusive=False)
    least = mx.min(mx.where(before < top_p, ordered, mx.inf))
    return mx.where(probabilities >= least, logits, -mx.inf)


class RowSampler:
    """One row's choice of tokens, and the random state behind it."""

    def __init__(self, sampling: Sampling) -> None:
        self.is_greedy = sampling.temperature == 0.0
        self._inverse_temperature = 0.0 if self.is_greedy else 1.0 / sampling.temperature
        self._top_p = sampling.top_p
        seed = int.from_bytes(os.urandom(8)) if sampling.seed is None else sampling.seed
        self._key = mx.random.key(seed & _SEED_MASK)

    def draw(self, logits: mx.array) -> mx.array:
        """A token for logits [V], unevaluated. Advances the row's key."""
        self._key, key = mx.random.split(self._key)
        scaled = logits.astype(mx.float32) * self._inverse_temperature
        if self._top_p < 1.0:
            scaled = _nucleus(scaled, self._top_p)
        return mx.random.categorical(scaled, key=key)


def sample(logits: mx.array, samplers: Sequence[RowSampler]) -> list[int | Fault]:
    """A token for each row of logits [R, V], or what went wrong with that row alone.

    Evaluates the forward behind the logits. A row whose logits are not finite is a fault.
    """
    greedy = mx.argmax(logits, axis=-1)
    sound = mx.isfinite(mx.max(logits, axis=-1))
    drawn = {
        row: isolated(sampler.draw, logits[row])
        for row, sampler in enumerate(samplers)
        if not sampler.is_greedy
    }
    mx.eval(greedy, sound, [token for token in drawn.values() if not isinstance(token, Fault)])
    tokens: list[int | Fault] = list(greedy.tolist())  # type: ignore[arg-type]
    for row, is_sound in enumerate(sound.tolist()):  # type: ignore[arg-type]
        if not is_sound:
            tokens[row] = Fault("the model computed numbers that are not finite")
        elif row in drawn:
            choice = drawn[row]
            tokens[row] = choice if isinstance(choice, Fault) else int(cast("int", choice.item()))
    return tokens
