"""Chooses each row's next token from its logits; `request.Sampling` tells the order of operations.

A row draws from a random key of its own, split once a token: what it draws depends on its seed, its
choice's number and on how many tokens it drew before, never on the batch around it. A greedy row
without penalties or log probabilities costs its share of one argmax over the batch.

Does not know sequences, text or end-of-sequence tokens. Engine thread only.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

import mlx.core as mx

from dovecote_engine.isolation import Fault, isolated
from dovecote_engine.sampling.logprobs import RankingDraft
from dovecote_engine.sampling.penalties import Penalties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.request import Sampling
    from dovecote_engine.sampling.constraint import RowConstraint
    from dovecote_engine.sampling.logprobs import Ranking

__all__ = ["RowSampler", "Sampled", "sample"]

_SEED_MASK = (1 << 64) - 1
_SEED_BYTES = 8
# SmolLM2's 49,152 logits on a CPU: sorting all takes 7 ms, finding and sorting so many takes 0.7.
_NUCLEUS_HEAD = 1024
_ROUNDING = 1e-4
"""How far two sums of the same probabilities may be apart."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row's next token. `ranking` None: nobody asked for it."""

    token: int
    ranking: Ranking | None = None


class RowSampler:
    """One row's choice of tokens, and the state behind it.

    `top_logprobs` None asks for no ranking. Without `constraint` any token may come.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int] = (),
        choice: int = 0,
        top_logprobs: int | None = None,
        constraint: RowConstraint | None = None,
    ) -> None:
        self._is_greedy = sampling.temperature == 0.0
        self._inverse_temperature = 0.0 if self._is_greedy else 1.0 / sampling.temperature
        self._sampling = sampling
        self._penalties = Penalties(sampling, prompt)
        self._top_logprobs = top_logprobs
        self._constraint = constraint
        self._key = mx.random.key(_seed(sampling.seed, choice))

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token, by its id alone, is all that the row wants."""
        free = self._penalties.is_neutral and self._constraint is None
        return self._is_greedy and free and self._top_logprobs is None

    def draw(self, logits: mx.array) -> Draft:
        """A token for logits [V], unevaluated. Advances the row's key.

        Raises: NoTokenFits.
        """
        changed = self._penalties.apply(logits.astype(mx.float32))
        if self._constraint is not None:
            changed = self._constraint.apply(changed)
        token = mx.argmax(changed) if self._is_greedy else self._drawn(changed)
        if self._top_logprobs is None:
            return Draft(token, None)
        return Draft(token, RankingDraft(logits, token, self._top_logprobs))

    def settle(self, draft: Draft) -> Sampled:
        """The evaluated draft as values; the row's state counts its token. Raises: NoTokenFits."""
        token = int(cast("int", draft.token.item()))
        self._penalties.note(token)
        if self._constraint is not None:
            self._constraint.note(token)
        return Sampled(token, None if draft.ranking is None else draft.ranking.read())

    def _drawn(self, logits: mx.array) -> mx.array:
        self._key, key = mx.random.split(self._key)
        sampling, scaled, ids = self._sampling, logits * self._inverse_temperature, None
        if sampling.top_k:
            ids = mx.argpartition(-scaled, sampling.top_k - 1)[: sampling.top_k]
            scaled = scaled[ids]
        if sampling.top_p < 1.0:
            scaled = _nucleus(scaled, sampling.top_p)
        if sampling.min_p > 0.0:
            scaled = _near_the_best(scaled, sampling.min_p)
        drawn = mx.random.categorical(scaled, key=key)
        return drawn if ids is None else ids[drawn]


@dataclass(frozen=True, slots=True)
class Draft:
    """A row's choice that the batch's evaluation completes."""

    token: mx.array
    ranking: RankingDraft | None

    @property
    def arrays(self) -> list[mx.array]:
        """What has to be evaluated before `RowSampler.settle`."""
        return [self.token, *(() if self.ranking is None else self.ranking.arrays)]


def sample(logits: mx.array, samplers: Sequence[RowSampler]) -> list[Sampled | Fault]:
    """A token for each row of logits [R, V], or what went wrong with that row alone.

    Evaluates the forward behind the logits. A row whose logits are not finite is a fault.
    """
    greedy = mx.argmax(logits, axis=-1)
    sound = mx.isfinite(mx.max(logits, axis=-1))
    # A row's draft may look at its logits: a forward that fails must fail here, not for that row.
    mx.eval(logits, greedy, sound)
    drafts = {
        row: isolated(sampler.draw, logits[row])
        for row, sampler in enumerate(samplers)
        if not sampler.is_plain
    }
    mx.eval([draft.arrays for draft in drafts.values() if isinstance(draft, Draft)])
    likeliest, sounds = cast("list[int]", greedy.tolist()), cast("list[bool]", sound.tolist())
    sampled: list[Sampled | Fault] = []
    for row, (token, is_sound) in enumerate(zip(likeliest, sounds, strict=True)):
        if not is_sound:
            sampled.append(Fault("the model computed numbers that are not finite"))
        elif row in drafts:
            sampled.append(_settled(samplers[row], drafts[row]))
        else:
            sampled.append(Sampled(token))
    return sampled


def _settled(sampler: RowSampler, draft: Draft | Fault) -> Sampled | Fault:
    return draft if isinstance(draft, Fault) else isolated(sampler.settle, draft)


def _seed(seed: int | None, choice: int) -> int:
    """The first choice has the request's own seed, the others each one made from it."""
    if seed is None:
        return int.from_bytes(os.urandom(_SEED_BYTES))
    first = seed & _SEED_MASK
    if choice == 0:
        return first
    material = first.to_bytes(_SEED_BYTES) + choice.to_bytes(_SEED_BYTES)
    return int.from_bytes(blake2b(material, digest_size=_SEED_BYTES).digest())


def _nucleus(logits: mx.array, top_p: float) -> mx.array:
    """The logits [V] of the likeliest tokens whose probabilities reach top_p; -inf elsewhere.

    Evaluates: sorting the whole vocabulary is only for the rare row that is nearly flat.
    """
    probabilities = mx.softmax(logits)
    head = probabilities
    if logits.size > _NUCLEUS_HEAD:
        head = -mx.partition(-probabilities, _NUCLEUS_HEAD - 1)[:_NUCLEUS_HEAD]
        if cast("float", mx.sum(head).item()) < top_p + _ROUNDING:
            head = probabilities
    ordered = -mx.sort(-head)
    before = mx.cumsum(ordered, inclusive=False)
    least = mx.min(mx.where(before < top_p, ordered, mx.inf))
    return mx.where(probabilities >= least, logits, -mx.inf)


def _near_the_best(logits: mx.array, min_p: float) -> mx.array:
    """The logits of the tokens at least min_p times as likely as the likeliest; -inf elsewhere."""
    least = mx.max(logits) + math.log(min_p)
    return mx.where(logits >= least, logits, -mx.inf)
