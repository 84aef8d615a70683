"""Runs a plan: restores, prefills and decodes into the slab, and samples.

Does not know why a plan is what it is, and changes no sequence: what came of the plan is returned.
Engine thread only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import mlx.core as mx

from dovecote_engine.head import LastLogits
from dovecote_engine.isolation import Fault, isolated
from dovecote_engine.layer_cache import ChunkCursor, DecodeCursor, layer_caches
from dovecote_engine.plan import Grown, Outcome, Prefilled, Restored
from dovecote_engine.sampler import sample

if TYPE_CHECKING:
    from collections.abc import Sequence as Ordered

    from mlx import nn

    from dovecote_engine.layer_cache import Cursor, LayerCache
    from dovecote_engine.plan import GrowthSlice, Plan, PrefillChunk, RestoreSlice
    from dovecote_engine.sampler import Sampled
    from dovecote_engine.sequence import Sequence
    from dovecote_engine.slab import Slab


class Runner:
    """The model over the slab."""

    def __init__(self, model: nn.Module, slab: Slab) -> None:
        self._model = model
        self._slab = slab
        self._caches = layer_caches(slab)
        self._last_logits = LastLogits(model)

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return self._last_logits.vocabulary

    def run(self, plan: Plan) -> Outcome:
        """Runs every part of the plan. A part that fails is a fault in the outcome."""
        outcome = Outcome()
        reserved = isolated(self._slab.reserve, plan.rows, plan.capacity)
        if isinstance(reserved, Fault):
            outcome.slab_lost = reserved
            return outcome
        if plan.growth is not None:
            grown = isolated(self._grow, plan.growth)
            if isinstance(grown, Fault):
                outcome.slab_lost = grown
                return outcome
            outcome.grown = grown
        if plan.restore is not None:
            outcome.restored = isolated(self._restore, plan.restore)
        if plan.prefill is not None and _is_reachable(plan.prefill, plan.restore, outcome):
            outcome.prefilled = isolated(self._prefill, plan.prefill)
        settled = isolated(self._slab.settle)
        decoded = isolated(self._decode, plan.decode) if plan.decode else []
        for result in (settled, decoded):
            if isinstance(result, Fault):
                outcome.slab_lost = result
        outcome.decoded = [] if isinstance(decoded, Fault) else decoded
        return outcome

    def _grow(self, part: GrowthSlice) -> Grown:
        began = time.perf_counter()
        planes = self._slab.grow(part.rows, part.tokens, part.planes)
        return Grown(planes, time.perf_counter() - began)

    def _restore(self, part: RestoreSlice) -> Restored:
        began = time.perf_counter()
        sequence = part.sequence
        with self._slab.row_planes(sequence.row) as planes:
            valid = sequence.lease.decode(planes, part.start_block, part.end_block)
        end = min(part.end_block * self._slab.block_tokens, self._slab.capacity)
        if valid < end:
            # A damaged block may have left anything behind (S1).
            self._slab.clear_row(sequence.row, valid)
        return Restored(valid, time.perf_counter() - began)

    def _prefill(self, part: PrefillChunk) -> Prefilled | Fault:
        began = time.perf_counter()
        sequence = part.sequence
        tokens = mx.array([sequence.tokens[part.start : part.end]])
        caches = self._caches_at(ChunkCursor(sequence.row, part.start, part.end))
        if not part.is_last:
            fault = self._prefill_silently(tokens, part)
            return fault or Prefilled((), time.perf_counter() - began)
        sampled: list[Sampled] = []
        for each in self._first_tokens(sequence, self._last_logits(tokens, caches)):
            if isinstance(each, Fault):
                return each
            sampled.append(each)
        return Prefilled(tuple(sampled), time.perf_counter() - began)

    def _first_tokens(self, sequence: Sequence, logits: mx.array) -> list[Sampled | Fault]:
        """One for each choice, from the same logits [1, V]."""
        samplers = [each.sampler for each in sequence.family]
        return sample(mx.broadcast_to(logits, (len(samplers), logits.shape[-1])), samplers)

    def _prefill_silently(self, tokens: mx.array, part: PrefillChunk) -> Fault | None:
        """Computes K and V only: logits that nobody evaluates cost nothing."""
        self._model(tokens, cache=self._caches)
        newest = self._slab.keys[-1][part.sequence.row, :, part.start : part.end]
        sound = mx.all(mx.isfinite(newest))
        mx.eval(sound, self._slab.keys, self._slab.values)
        if not sound.item():
            return Fault("the model computed numbers that are not finite")
        return None

    def _decode(self, sequences: Ordered[Sequence]) -> list[Sampled | Fault]:
        """One token for each of the rows [0, R)."""
        caches = self._caches_at(DecodeCursor([sequence.length for sequence in sequences]))
        tokens = mx.array([[sequence.tokens[-1]] for sequence in sequences])
        logits: mx.array = self._model(tokens, cache=caches)
        return sample(logits[:, -1], [sequence.sampler for sequence in sequences])

    def _caches_at(self, cursor: Cursor) -> Ordered[LayerCache]:
        for cache in self._caches:
            cache.cursor = cursor
        return self._caches


def _is_reachable(chunk: PrefillChunk, restore: RestoreSlice | None, outcome: Outcome) -> bool:
    """A chunk may follow its own row's restore in one step, but only if that came out whole."""
    if restore is None or restore.sequence is not chunk.sequence:
        return True
    restored = outcome.restored
    return isinstance(restored, Restored) and restored.valid_tokens >= chunk.start
