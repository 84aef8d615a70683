"""How alike two rows' logits are: the same top token, how far the distributions are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stored_rows import Numbers


@dataclass(frozen=True)
class Agreement:
    """Sums over positions at which every row was given the same tokens."""

    positions: int = 0
    same_top: int = 0
    divergence: float = 0.0
    surprise: float = 0.0

    @property
    def top1(self) -> float:
        """Share of positions whose likeliest token is the reference's."""
        return self.same_top / self.positions

    @property
    def mean_divergence(self) -> float:
        """Kullback-Leibler divergence from the reference's distribution, nats a token."""
        return self.divergence / self.positions

    @property
    def perplexity(self) -> float:
        """Of the tokens that did follow."""
        return float(np.exp(self.surprise / self.positions))

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.positions + other.positions,
            self.same_top + other.same_top,
            self.divergence + other.divergence,
            self.surprise + other.surprise,
        )


def log_probabilities(logits: Numbers) -> Numbers:
    """Of the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    sums = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    likely: Numbers = shifted - np.log(sums).astype(np.float32)
    return likely


def agreement(reference: Numbers, found: Numbers, followed_by: npt.ArrayLike) -> Agreement:
    """Of logits [T, V] with the reference's; `followed_by` are the T tokens that came next."""
    expected, given = log_probabilities(reference), log_probabilities(found)
    tokens = np.asarray(followed_by)
    apart = np.exp(expected) * (expected - given)
    return Agreement(
        positions=len(tokens),
        same_top=int((expected.argmax(axis=-1) == given.argmax(axis=-1)).sum()),
        divergence=float(apart.sum(dtype=np.float64)),
        surprise=-float(given[np.arange(len(tokens)), tokens].sum(dtype=np.float64)),
    )
