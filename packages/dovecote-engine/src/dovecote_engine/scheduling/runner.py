"""Runs a plan: restores, prefills and decodes into the rows, and samples.

Does not know why a plan is what it is, and changes no sequence: what came of the plan is returned.
Engine thread only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import mlx.core as mx

from dovecote_engine.isolation import Fault, isolated
from dovecote_engine.rows.forward import Chunk
from dovecote_engine.sampling.sampler import sample
from dovecote_engine.scheduling.plan import Grown, Outcome, Prefilled, Restored

if TYPE_CHECKING:
    from collections.abc import Sequence as Ordered

    from dovecote_engine.rows.forward import Forward
    from dovecote_engine.rows.rows import Rows
    from dovecote_engine.sampling.sampler import Sampled
    from dovecote_engine.scheduling.plan import GrowthSlice, Plan, PrefillChunk, RestoreSlice
    from dovecote_engine.scheduling.sequence import Sequence


_NOT_FINITE = Fault("the model computed numbers that are not finite")


class Runner:
    """The model over its rows."""

    def __init__(self, forward: Forward, rows: Rows) -> None:
        self._forward = forward
        self._rows = rows

    def run(self, plan: Plan) -> Outcome:
        """Runs every part of the plan. A part that fails is a fault in the outcome."""
        outcome = Outcome()
        reserved = isolated(self._rows.reserve, plan.rows, plan.capacity)
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
        prefill = plan.prefill
        if prefill is not None and not _is_reachable(prefill, plan.restore, outcome):
            prefill = None
        if prefill is None or not self._join(prefill, plan.decode, outcome):
            self._run_apart(prefill, plan.decode, outcome)
        return outcome

    def _run_apart(
        self, prefill: PrefillChunk | None, decode: Ordered[Sequence], outcome: Outcome
    ) -> None:
        if prefill is not None:
            outcome.prefilled = isolated(self._prefill, prefill)
        settled = isolated(self._rows.settle)
        decoded = isolated(self._decode, decode) if decode else []
        for result in (settled, decoded):
            if isinstance(result, Fault):
                outcome.slab_lost = result
        outcome.decoded = [] if isinstance(decoded, Fault) else decoded

    def _join(self, prefill: PrefillChunk, decode: Ordered[Sequence], outcome: Outcome) -> bool:
        """Runs both in one forward, where that can be; whether it was done.

        If it fails, both have to be run apart, to tell whose fault it is: what it may have written
        is then written again.
        """
        if not decode or not self._forward.can_join:
            return False
        began = time.perf_counter()
        joined = isolated(self._joined, prefill, decode)
        if isinstance(joined, Fault):
            return False
        outcome.is_joint = True
        outcome.decoded, last = joined
        first = isolated(self._sampled_first, prefill, last) if last is not None else _NOT_FINITE
        if isinstance(first, Fault):
            outcome.prefilled = first
        else:
            outcome.prefilled = Prefilled(first, time.perf_counter() - began)
        return True

    def _joined(
        self, prefill: PrefillChunk, decode: Ordered[Sequence]
    ) -> tuple[list[Sampled | Fault], mx.array | None]:
        """What the rows sampled, and the chunk's last logits if it came out finite."""
        sequence = prefill.sequence
        chunk = Chunk(sequence.tokens[prefill.start : prefill.end], sequence.row, prefill.start)
        newest = [each.tokens[-1] for each in decode]
        joined = self._forward.join(chunk, newest, [each.length for each in decode])
        sampled = sample(joined.decoded, [each.sampler for each in decode])
        return sampled, joined.last if joined.is_sound else None

    def _grow(self, part: GrowthSlice) -> Grown:
        began = time.perf_counter()
        planes = self._rows.grow(part.rows, part.tokens, part.planes)
        return Grown(planes, time.perf_counter() - began)

    def _restore(self, part: RestoreSlice) -> Restored:
        began = time.perf_counter()
        sequence = part.sequence
        blocks = (part.start_block, part.end_block)
        valid = self._rows.restore(sequence.lease, sequence.row, *blocks)
        tokens = min(valid, sequence.matched)
        if tokens < sequence.matched or part.end_block * self._rows.block_tokens >= tokens:
            valid = self._rows.resume(sequence.lease, sequence.row, tokens, sequence.tokens)
        return Restored(valid, time.perf_counter() - began)

    def _prefill(self, part: PrefillChunk) -> Prefilled | Fault:
        began = time.perf_counter()
        sequence = part.sequence
        tokens = sequence.tokens[part.start : part.end]
        if not part.is_last:
            if not self._forward.chunk(tokens, sequence.row, part.start):
                return _NOT_FINITE
            return Prefilled((), time.perf_counter() - began)
        logits = self._forward.last_chunk(tokens, sequence.row, part.start)
        sampled = self._sampled_first(part, logits)
        if isinstance(sampled, Fault):
            return sampled
        return Prefilled(sampled, time.perf_counter() - began)

    def _sampled_first(self, part: PrefillChunk, logits: mx.array) -> tuple[Sampled, ...] | Fault:
        """The first token of each choice, if the chunk is the prompt's last."""
        sampled: list[Sampled] = []
        for each in self._first_tokens(part.sequence, logits) if part.is_last else ():
            if isinstance(each, Fault):
                return each
            sampled.append(each)
        return tuple(sampled)

    def _first_tokens(self, sequence: Sequence, logits: mx.array) -> list[Sampled | Fault]:
        """One for each choice, from the same logits [1, V]."""
        samplers = [each.sampler for each in sequence.family]
        return sample(mx.broadcast_to(logits, (len(samplers), logits.shape[-1])), samplers)

    def _decode(self, sequences: Ordered[Sequence]) -> list[Sampled | Fault]:
        """One token for each of the rows [0, R)."""
        tokens = [sequence.tokens[-1] for sequence in sequences]
        logits = self._forward.decode(tokens, [sequence.length for sequence in sequences])
        return sample(logits, [sequence.sampler for sequence in sequences])


def _is_reachable(chunk: PrefillChunk, restore: RestoreSlice | None, outcome: Outcome) -> bool:
    """A chunk may follow its own row's restore in one step, but only if that came out whole."""
    if restore is None or restore.sequence is not chunk.sequence:
        return True
    restored = outcome.restored
    return isinstance(restored, Restored) and restored.valid_tokens >= chunk.start
