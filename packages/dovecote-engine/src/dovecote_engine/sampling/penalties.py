"""What a row's past, and its biases, do to its logits.

    offset [V]   bias - presence * (count > 0) - frequency * count     one element changes a token
    seen   [V]   whether prompt or answer has the token                one element changes a token

Both are made at the first use and then updated, never computed anew: a token costs the same however
long the row is. Does not know why its numbers are what they are. Engine thread only.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.request import Sampling

__all__ = ["Penalties"]


class Penalties:
    """The penalties and biases of one row. `prompt` counts for the repetition penalty alone."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._repetition = sampling.repetition_penalty
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._bias = dict(sampling.logit_bias)
        self._has_offset = bool(self._presence or self._frequency or self._bias)
        self._counts: Counter[int] = Counter()
        self._prompt = prompt
        self._offset: mx.array | None = None
        self._seen: mx.array | None = None

    @property
    def is_neutral(self) -> bool:
        """Whether logits stay as they are, whatever the row's past."""
        return self._repetition == 1.0 and not self._has_offset

    def apply(self, logits: mx.array) -> mx.array:
        """The changed logits [V], unevaluated; does not modify the given ones."""
        if self._repetition != 1.0:
            if self._seen is None:
                self._seen = _mask(self._prompt, logits.shape[-1])
            penalised = mx.where(logits > 0, logits / self._repetition, logits * self._repetition)
            logits = mx.where(self._seen, penalised, logits)
        if self._has_offset:
            if self._offset is None:
                self._offset = _scattered(self._bias, logits.shape[-1])
            logits = logits + self._offset
        return logits

    def note(self, token: int) -> None:
        """Takes a sampled token into account from the next `apply` on."""
        self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True
        if self._offset is not None and (self._presence or self._frequency):
            penalty = self._presence + self._frequency * self._counts[token]
            self._offset[token] = self._bias.get(token, 0.0) - penalty


def _mask(tokens: Sequence[int], vocabulary: int) -> mx.array:
    seen = np.zeros(vocabulary, np.bool_)
    seen[np.array(tokens, np.int64)] = True
    return mx.array(seen)


def _scattered(values: dict[int, float], vocabulary: int) -> mx.array:
    offset = np.zeros(vocabulary, np.float32)
    for token, value in values.items():
        offset[token] = value
    return mx.array(offset)
