"""Turns the outcome of a step into events, and moves every sequence on.

    outcome of a row           what follows
    ----------------------------------------------------------------------------------------
    restored                   length grows; shorter than planned if a block was damaged
    prefilled, not the last    length grows; whole blocks are sealed
    prefilled, the last        as above; the row joins the batch; Started; then as for decoded
    decoded                    TokenEvent, unless the token ends the answer; whole blocks sealed
    an ending                  the rest is sealed, lease and row go back; Finished
    a fault                    lease and row go back, the row is cleared; Failed
    the slab is lost           every row as for a fault; the slab starts anew

All lengths are brought up to date before any row leaves: a leaving row has others moved, by length.

Does not know how the outcome came about. Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.isolation import Fault, isolated
from dovecote_engine.request import Failed, Finished, Started, TokenEvent
from dovecote_engine.sequence import NO_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dovecote_engine.admission import Admission
    from dovecote_engine.counters import Counters
    from dovecote_engine.keeper import Keeper
    from dovecote_engine.plan import Outcome, Plan, PrefillChunk, Prefilled, Restored, RestoreSlice
    from dovecote_engine.request import Event, FinishReason
    from dovecote_engine.scheduler import RowChange, Scheduler
    from dovecote_engine.sequence import Sequence
    from dovecote_engine.served import Loaded
    from dovecote_engine.slab import Slab


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an engine that a commit touches."""

    loaded: Loaded
    admission: Admission
    scheduler: Scheduler
    slab: Slab
    keeper: Keeper
    counters: Counters


class Committer:
    """The third verb of a step."""

    def __init__(self, parts: Parts, clock: Callable[[], float]) -> None:
        self._tokenizer = parts.loaded.tokenizer
        self._eos_ids = parts.loaded.eos_ids
        self._admission = parts.admission
        self._scheduler = parts.scheduler
        self._slab = parts.slab
        self._keeper = parts.keeper
        self._counters = parts.counters
        self._clock = clock

    def commit(self, plan: Plan, outcome: Outcome) -> list[Event]:
        """The events of the step, in order."""
        events: list[Event] = []
        if outcome.slab_lost is not None:
            return self._abandon(plan, outcome.slab_lost)
        for sequence in plan.decode:
            sequence.length += 1
        if plan.restore is not None and outcome.restored is not None:
            events += self._restored(plan.restore, outcome.restored)
        if plan.prefill is not None and outcome.prefilled is not None:
            events += self._prefilled(plan.prefill, outcome.prefilled)
        for sequence, token in zip(plan.decode, outcome.decoded, strict=True):
            events += self._decoded(sequence, token)
        for sequence in plan.cancelled:
            events += self._end(sequence, "cancelled")
        return events

    def _restored(self, part: RestoreSlice, restored: Restored | Fault) -> Iterable[Event]:
        if isinstance(restored, Fault):
            return self._fail(part.sequence, restored)
        block_tokens = self._slab.block_tokens
        part.sequence.restored(
            restored.valid_tokens, part.end_block, block_tokens, restored.seconds
        )
        self._scheduler.note_restore(part.end_block - part.start_block, restored.seconds)
        return ()

    def _prefilled(self, part: PrefillChunk, prefilled: Prefilled | Fault) -> Iterable[Event]:
        sequence = part.sequence
        if isinstance(prefilled, Fault):
            return self._fail(sequence, prefilled)
        sequence.length = part.end
        self._counters.prefilled_tokens += part.end - part.start
        self._scheduler.note_prefill(part.end - part.start, prefilled.seconds)
        self._keeper.seal_whole_blocks(sequence)
        if prefilled.token is None:
            return ()
        return self._started(sequence, prefilled.token)

    def _started(self, sequence: Sequence, token: int) -> Iterable[Event]:
        self._counters.prompt_tokens += sequence.prompt_tokens
        self._counters.restored_tokens += sequence.matched
        self._apply(self._scheduler.promote(sequence))
        stream = isolated(self._tokenizer.text_stream)
        if isinstance(stream, Fault):
            return self._fail(sequence, stream)
        sequence.begin_text(stream)
        timing = sequence.timing(self._clock())
        return (Started(sequence.id, sequence.matched, timing), *self._accept(sequence, token))

    def _decoded(self, sequence: Sequence, token: int | Fault) -> Iterable[Event]:
        if sequence.is_cancelled:
            return ()
        if isinstance(token, Fault):
            return self._fail(sequence, token)
        self._keeper.seal_whole_blocks(sequence)
        return self._accept(sequence, token)

    def _accept(self, sequence: Sequence, token: int) -> Iterable[Event]:
        self._counters.decoded_tokens += 1
        reason = sequence.accept(token, self._eos_ids)
        if reason == "stop":
            return self._end(sequence, reason)
        text = isolated(sequence.text_of, token)
        if isinstance(text, Fault):
            return self._fail(sequence, text)
        event = TokenEvent(sequence.id, token, text)
        if reason is None and self._scheduler.can_grow(sequence):
            return (event,)
        return (event, *self._end(sequence, "length"))

    def _end(self, sequence: Sequence, reason: FinishReason) -> Iterable[Event]:
        text = isolated(sequence.rest_of_text)
        if isinstance(text, Fault):
            return self._fail(sequence, text)
        self._keeper.close(sequence)
        self._leave(sequence)
        if reason == "cancelled":
            self._counters.cancelled += 1
        else:
            self._counters.finished += 1
        return (Finished(sequence.id, reason, text, sequence.usage),)

    def _fail(self, sequence: Sequence, fault: Fault) -> Iterable[Event]:
        """Nothing more of it is sealed: its last K and V may be what is wrong."""
        if sequence.row != NO_ROW:
            self._slab.clear_row(sequence.row)
        sequence.lease.release()
        self._leave(sequence)
        self._counters.failed += 1
        return (Failed(sequence.id, fault.message),)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.row != NO_ROW:
            for change in self._scheduler.retire(sequence):
                self._apply(change)
        self._admission.finished(sequence)

    def _apply(self, change: RowChange | None) -> None:
        if change is None:
            return
        if change.kind == "swap":
            self._slab.swap_rows(change.source, change.target, change.tokens)
        else:
            self._slab.move_row(change.source, change.target, change.tokens)

    def _abandon(self, plan: Plan, fault: Fault) -> list[Event]:
        self._counters.slab_losses += 1
        lost = self._scheduler.clear()
        self._slab.reset()
        events: list[Event] = []
        for sequence in lost:
            if not sequence.is_cancelled:
                events += self._fail(sequence, fault)
        for sequence in plan.cancelled:
            events += self._end(sequence, "cancelled")
        return events
