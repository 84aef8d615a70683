"""Turns the outcome of a step into events, and moves every sequence on.

    outcome of a row           what follows
    ----------------------------------------------------------------------------------------
    restored                   length grows; shorter than planned if a block was damaged
    prefilled, not the last    length grows; whole blocks are sealed
    prefilled, the last        as above; the row joins the batch, and so do the rows that follow,
                               as copies of it; Started; then, for each, as for decoded
    decoded                    TokenEvent, unless the token ends the answer; whole blocks sealed
    an ending                  the rest is sealed, lease and row go back; Finished, or
                               ChoiceFinished while other choices of the request run
    a fault                    lease and row go back, the row is cleared, and so for the request's
                               other choices; Failed
    the slab is lost           every row as for a fault; the slab starts anew
    waited too long            the lease goes back; Failed, with a time to come back

All lengths are brought up to date before any row leaves: a leaving row has others moved, by length.

Does not know how the outcome came about. Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.isolation import Fault, isolated
from dovecote_engine.request import ChoiceFinished, Failed, Finished, Started, TokenEvent
from dovecote_engine.sampling.logprobs import named
from dovecote_engine.scheduling.sequence import NO_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dovecote_engine.counters import Counters
    from dovecote_engine.request import Event, FinishReason
    from dovecote_engine.rows.keeper import Keeper
    from dovecote_engine.rows.rows import Rows
    from dovecote_engine.sampling.sampler import Sampled
    from dovecote_engine.scheduling.admission import Admission
    from dovecote_engine.scheduling.plan import (
        Outcome,
        Plan,
        PrefillChunk,
        Prefilled,
        Restored,
        RestoreSlice,
    )
    from dovecote_engine.scheduling.scheduler import RowChange, Scheduler
    from dovecote_engine.scheduling.sequence import Sequence
    from dovecote_engine.served import Loaded
    from dovecote_engine.text.answer import Piece
    from dovecote_engine.text.text_stream import TextStream

_LEAD_TOKENS = 8
"""So many tokens hold a whole character of any tokenizer, after which text is decoded as it is."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an engine that a commit touches."""

    loaded: Loaded
    admission: Admission
    scheduler: Scheduler
    rows: Rows
    keeper: Keeper
    counters: Counters


class Committer:
    """The third verb of a step."""

    def __init__(self, parts: Parts, clock: Callable[[], float]) -> None:
        self._tokenizer = parts.loaded.tokenizer
        self._eos_ids = parts.loaded.eos_ids
        self._admission = parts.admission
        self._scheduler = parts.scheduler
        self._rows = parts.rows
        self._keeper = parts.keeper
        self._counters = parts.counters
        self._clock = clock

    def commit(self, plan: Plan, outcome: Outcome) -> list[Event]:
        """The events of the step, in order."""
        events = [self._expire(sequence) for sequence in plan.expired]
        if outcome.slab_lost is not None:
            return [*events, *self._abandon(plan, outcome.slab_lost)]
        for sequence in plan.decode:
            sequence.length += 1
        if plan.restore is not None and outcome.restored is not None:
            events += self._restored(plan.restore, outcome.restored)
        if plan.prefill is not None and outcome.prefilled is not None:
            events += self._prefilled(plan.prefill, outcome.prefilled)
        for sequence, sampled in zip(plan.decode, outcome.decoded, strict=True):
            events += self._decoded(sequence, sampled)
        for sequence in plan.cancelled:
            events += self._end(sequence, "cancelled")
        return events

    def _restored(self, part: RestoreSlice, restored: Restored | Fault) -> Iterable[Event]:
        if isinstance(restored, Fault):
            return self._fail(part.sequence, restored)
        sequence, matched = part.sequence, part.sequence.matched
        block_tokens = self._rows.block_tokens
        sequence.restored(restored.valid_tokens, part.end_block, block_tokens, restored.seconds)
        if sequence.matched < matched:
            begin = (sequence.matched, sequence.lease.tokens)
            sequence.stop = self._rows.stop(*begin, sequence.prompt_tokens)
        return ()

    def _prefilled(self, part: PrefillChunk, prefilled: Prefilled | Fault) -> Iterable[Event]:
        sequence = part.sequence
        if isinstance(prefilled, Fault):
            return self._fail(sequence, prefilled)
        sequence.length = part.end
        self._counters.prefilled_tokens += part.end - part.start
        self._keeper.seal_whole_blocks(sequence)
        if not prefilled.sampled:
            return ()
        return self._started(sequence, prefilled.sampled)

    def _started(self, leader: Sequence, sampled: tuple[Sampled, ...]) -> Iterable[Event]:
        self._counters.prompt_tokens += leader.prompt_tokens
        self._counters.restored_tokens += leader.matched
        self._apply(self._scheduler.promote(leader))
        for follower in leader.family[1:]:
            self._apply(self._scheduler.promote(follower))
            self._rows.move_row(leader.row, follower.row, leader.length)
            follower.take_over(leader)
        origin, timing = self._keeper.origin(leader), leader.timing(self._clock())
        events: list[Event] = [
            Started(leader.id, leader.matched, timing, origin.own_tokens, origin.missed),
        ]
        for sequence, token in zip(leader.family, sampled, strict=True):
            stream = isolated(self._stream_of, sequence)
            if isinstance(stream, Fault):
                return [*events, *self._fail(sequence, stream)]
            sequence.begin_text(stream)
            events += self._accept(sequence, token)
        return events

    def _stream_of(self, sequence: Sequence) -> TextStream:
        """The detokenizer of its answer: a text of its own, or what goes on from a turn that has
        begun, or from a raw prompt.
        """
        form, prompt = sequence.request.form, sequence.request.prompt
        lead = prompt[-_LEAD_TOKENS:] if form.begun or not form.is_chat else ()
        return self._tokenizer.text_stream(sequence.reading.shown_ids, lead)

    def _decoded(self, sequence: Sequence, sampled: Sampled | Fault) -> Iterable[Event]:
        if sequence.is_cancelled or sequence.has_left:
            return ()
        if isinstance(sampled, Fault):
            return self._fail(sequence, sampled)
        self._keeper.seal_whole_blocks(sequence)
        return self._accept(sequence, sampled)

    def _accept(self, sequence: Sequence, sampled: Sampled) -> Iterable[Event]:
        if sequence.has_left:
            return ()
        self._counters.decoded_tokens += 1
        reason = sequence.accept(sampled.token, self._eos_ids)
        if reason == "stop":
            return self._end(sequence, reason)
        piece = isolated(self._text_of, sequence, sampled)
        if isinstance(piece, Fault):
            return self._fail(sequence, piece)
        choice = sequence.choice
        event = TokenEvent(
            sequence.id,
            sampled.token,
            piece.text,
            choice,
            piece.logprobs,
            piece.reasoning,
            piece.tool_calls,
        )
        if piece.is_stopped:
            return (event, *self._end(sequence, "stop"))
        if reason is None and self._scheduler.can_grow(sequence):
            return (event,)
        return (event, *self._end(sequence, "length"))

    def _text_of(self, sequence: Sequence, sampled: Sampled) -> Piece:
        logprobs = None
        if sampled.ranking is not None:
            logprobs = named(sampled.token, sampled.ranking, self._tokenizer.token_bytes)
        return sequence.text_of(sampled.token, logprobs)

    def _end(self, sequence: Sequence, reason: FinishReason) -> Iterable[Event]:
        rest = isolated(sequence.rest_of_text)
        if isinstance(rest, Fault):
            return self._fail(sequence, rest)
        if rest.is_stopped and reason == "length":
            reason = "stop"
        if reason == "stop" and sequence.has_calls:
            reason = "tool_calls"
        self._remember(sequence)
        self._keeper.close(sequence)
        self._leave(sequence)
        name, choice = sequence.id, sequence.choice
        shown = (rest.logprobs, rest.reasoning, rest.tool_calls, sequence.stopped_by)
        if not sequence.is_last:
            return (ChoiceFinished(name, choice, reason, rest.text, *shown),)
        if reason == "cancelled":
            self._counters.cancelled += 1
        else:
            self._counters.finished += 1
        return (Finished(name, reason, rest.text, sequence.usage, choice, *shown),)

    def _remember(self, sequence: Sequence) -> None:
        """Only what a client may send back: a cancelled answer may be, as far as it was shown."""
        turn = sequence.turn(self._eos_ids) if sequence.request.form.is_chat else None
        if turn is not None:
            isolated(self._tokenizer.remember, turn, sequence.request.salt)

    def _fail(self, sequence: Sequence, fault: Fault) -> Iterable[Event]:
        """Ends the request with all its choices.

        Nothing more of them is sealed: their last K and V may be what is wrong.
        """
        if sequence.has_left:
            return ()
        for each in sequence.family:
            if not each.has_left:
                self._drop(each)
        self._counters.failed += 1
        return (Failed(sequence.id, fault.message),)

    def _drop(self, sequence: Sequence) -> None:
        if sequence.row != NO_ROW:
            self._rows.clear_row(sequence.row)
        sequence.release()
        self._leave(sequence)

    def _expire(self, sequence: Sequence) -> Event:
        sequence.release()
        self._admission.finished(sequence)
        self._counters.expired += 1
        message = "The request waited too long for its turn."
        return Failed(sequence.id, message, self._admission.retry_after_s)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.row != NO_ROW:
            for change in self._scheduler.retire(sequence):
                self._apply(change)
        sequence.has_left = True
        if sequence.is_last:
            self._admission.finished(sequence)

    def _apply(self, change: RowChange | None) -> None:
        if change is None:
            return
        if change.kind == "swap":
            self._rows.swap_rows(change.source, change.target, change.tokens)
        else:
            self._rows.move_row(change.source, change.target, change.tokens)

    def _abandon(self, plan: Plan, fault: Fault) -> list[Event]:
        self._counters.slab_losses += 1
        lost = self._scheduler.clear()
        self._rows.reset()
        events: list[Event] = []
        for sequence in lost:
            if not sequence.is_cancelled:
                events += self._fail(sequence, fault)
        for sequence in plan.cancelled:
            events += self._end(sequence, "cancelled")
        return events
