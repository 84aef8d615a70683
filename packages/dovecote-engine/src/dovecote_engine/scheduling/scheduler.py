"""Decides what each step runs, and which sequence is in which row.

    rows   [0, decoding)          sequences that decode: one batch
           [decoding, len(rows))  sequences that restore or prefill

Both ranges are compact. A row that leaves is filled by the last of its range; the memory moves that
this takes are returned, for the slab to do.

Two sequences of one agent never run at once. Who else starts, and whose prompt gets the next chunk,
is decided in `turns.py`. A sequence that was chosen and does not fit the slab holds up the rest, so
that a long one is not starved by short ones.

Does not know the model, MLX or how long anything takes beyond what `note_*` tells it.
Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dovecote_engine.scheduling.gaps import GapBudget
from dovecote_engine.scheduling.plan import (
    GrowthSlice,
    Plan,
    PrefillChunk,
    Prefilled,
    Restored,
    RestoreSlice,
)
from dovecote_engine.scheduling.sequence import NO_ROW
from dovecote_engine.scheduling.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_engine.options import EngineOptions
    from dovecote_engine.rows.rows import Rows
    from dovecote_engine.scheduling.admission import Admission
    from dovecote_engine.scheduling.plan import Outcome
    from dovecote_engine.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class RowChange:
    """A copy, or exchange, of the first `tokens` positions of two rows."""

    kind: Literal["move", "swap"]
    source: int
    target: int
    tokens: int


class Scheduler:
    """The rows, and the plan of each step."""

    def __init__(
        self,
        admission: Admission,
        slab: Rows,
        options: EngineOptions,
        clock: Callable[[], float],
    ) -> None:
        self.rows: list[Sequence] = []
        self.decoding = 0
        self._admission = admission
        self._slab = slab
        self._options = options
        self._clock = clock
        self._steps = 0
        self._turns = Turns(options.max_rows)
        self._budget = GapBudget(options)

    def plan(self) -> Plan:
        """The next step. Starts waiting sequences where there are rows; changes nothing else."""
        self._steps += 1
        cancelled = self._admission.take_cancelled(self.rows)
        expired = self._admission.take_expired()
        self._start_waiting()
        decode = tuple(self.rows[: self.decoding])
        if all(sequence.is_cancelled for sequence in decode):
            decode = ()
        growth = self._plan_growth() if decode else None
        restore = self._plan_restore()
        prefill = self._plan_prefill(growth, restore)
        rows, capacity = self._room(decode, restore, prefill)
        return Plan(
            cancelled=cancelled,
            expired=expired,
            growth=growth,
            restore=restore,
            prefill=prefill,
            decode=decode,
            rows=rows,
            capacity=capacity,
        )

    def note(self, outcome: Outcome, plan: Plan, seconds: float) -> None:
        """Learns from a step that took so long how fast its parts are."""
        if outcome.grown is not None:
            seconds -= outcome.grown.seconds
            self._budget.growth.record(outcome.grown.planes, outcome.grown.seconds)
        if plan.restore is not None and isinstance(outcome.restored, Restored):
            blocks = plan.restore.end_block - plan.restore.start_block
            seconds -= outcome.restored.seconds
            self._budget.restore.record(blocks, outcome.restored.seconds)
        if plan.prefill is not None and isinstance(outcome.prefilled, Prefilled):
            tokens = plan.prefill.end - plan.prefill.start
            seconds -= outcome.prefilled.seconds
            if outcome.is_joint:
                self._budget.note_joint(tokens, outcome.prefilled.seconds)
            else:
                self._budget.note_chunk(
                    tokens, outcome.prefilled.seconds, is_hurried=bool(plan.decode)
                )
        if plan.decode and not outcome.is_joint:
            self._budget.note_decode(seconds)

    def can_grow(self, sequence: Sequence) -> bool:
        """Whether the slab has, or can get, room for the sequence's next token."""
        tokens = sequence.length + 1
        return tokens <= self._slab.capacity or self._slab.can_reserve(len(self.rows), tokens)

    def promote(self, sequence: Sequence) -> RowChange | None:
        """Moves a prefilled sequence to the decoding rows."""
        change = None
        first = self.rows[self.decoding]
        if first is not sequence:
            tokens = max(first.length, sequence.length)
            change = RowChange("swap", sequence.row, first.row, tokens)
            self._place(first, sequence.row)
            self._place(sequence, self.decoding)
        self.decoding += 1
        return change

    def retire(self, sequence: Sequence) -> list[RowChange]:
        """Takes a sequence out of its row; the last of its range, then of all, fill the holes."""
        changes = []
        hole = sequence.row
        if hole < self.decoding:
            self.decoding -= 1
            changes += self._fill(hole, self.decoding)
            hole = self.decoding
        changes += self._fill(hole, len(self.rows) - 1)
        self.rows.pop()
        sequence.row = NO_ROW
        return changes

    def clear(self) -> list[Sequence]:
        """Empties every row, without a move of memory; returns who was in them."""
        rows, self.rows, self.decoding = self.rows, [], 0
        for sequence in rows:
            sequence.row = NO_ROW
        return rows

    def _fill(self, hole: int, last: int) -> list[RowChange]:
        if hole == last:
            return []
        mover = self.rows[last]
        self._place(mover, hole)
        return [RowChange("move", last, hole, mover.length)]

    def _place(self, sequence: Sequence, row: int) -> None:
        self.rows[row] = sequence
        sequence.row = row

    def _start_waiting(self) -> None:
        while True:
            heads = self._admission.heads(self.rows)
            self._turns.meet((*self.rows, *heads))
            if not heads:
                return
            sequence = self._turns.next_start(heads, self.rows)
            if sequence is None or not self._fits(sequence):
                return
            self._admission.take(sequence)
            sequence.start(len(self.rows), self._clock())
            self._settle_start(sequence)
            self.rows.append(sequence)
            for follower in sequence.fork():
                follower.row = len(self.rows)
                self.rows.append(follower)

    def _settle_start(self, sequence: Sequence) -> None:
        """Some rows can go on only after some of what was matched, and keep their state once."""
        matched, lease = sequence.matched, sequence.lease
        sequence.matched = self._slab.resumable(lease, matched) if matched else 0
        sequence.stop = self._slab.stop(sequence.matched, matched, sequence.prompt_tokens)

    def _fits(self, sequence: Sequence) -> bool:
        """Whether the rows of all its choices fit, with every row as long as it may get."""
        if not self.rows:
            return True
        choices = sequence.request.choices
        if choices > 1 and len(self.rows) + choices > self._options.max_rows:
            return False
        rows = (*self.rows, sequence)
        tokens = max(max(row.extent.planned_tokens, row.length + 1) for row in rows)
        return self._slab.can_reserve(len(self.rows) + choices, tokens)

    def _plan_growth(self) -> GrowthSlice | None:
        """Room for every prompt, and ahead of the longest answer, before anybody needs it.

        While rows decode, the slab grows in slices; who does not fit yet waits for the last one.
        """
        preparing = [row for row in self._preparing() if row.phase != "following"]
        rows = max([self.decoding, *(_last_row(row) + 1 for row in preparing)])
        longest = max(row.length + 1 for row in self.rows[: self.decoding])
        tokens = max([longest, *(row.prompt_tokens for row in preparing)])
        # As many tokens ahead as there are planes: one plane a token is the slowest growth.
        ahead = max(tokens, longest + self._slab.planes)
        if self._slab.can_reserve(rows, ahead):
            tokens = ahead
        if self._slab.holds(rows, tokens) or not self._slab.can_reserve(rows, tokens):
            return None
        return GrowthSlice(rows, tokens, self._budget.planes())

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether it can be prepared without making decoding rows wait for the slab to grow."""
        return not self.decoding or self._slab.holds(
            _last_row(sequence) + 1, sequence.prompt_tokens
        )

    def _plan_restore(self) -> RestoreSlice | None:
        waiting = [
            row for row in self._preparing() if row.phase == "restoring" and self._has_room(row)
        ]
        if not waiting:
            return None
        sequence = self._turns.next_restore(waiting)
        last = -(-sequence.matched // self._slab.block_tokens)
        start = sequence.restored_blocks
        end = min(last, start + self._budget.blocks()) if self.decoding else last
        return RestoreSlice(sequence, start, end)

    def _plan_prefill(
        self, growth: GrowthSlice | None, restore: RestoreSlice | None
    ) -> PrefillChunk | None:
        """A chunk for the row whose turn it is. One whose restore ends in this step is restored."""
        ready = [
            row for row in self._preparing() if row.phase == "prefilling" and self._has_room(row)
        ]
        if restore is not None and self._completes(restore):
            ready.append(restore.sequence)
        tokens = self._chunk_tokens(growth, restore)
        if not ready or not tokens:
            return None
        sequence = self._turns.next_chunk(ready)
        sequence.served_at_step = self._steps
        start = max(sequence.length, sequence.matched)
        end = min(sequence.prompt_tokens, start + tokens)
        if start < sequence.stop < end:
            end = sequence.stop
        self._turns.charge(sequence, end - start)
        return PrefillChunk(sequence, start, end)

    def _completes(self, restore: RestoreSlice) -> bool:
        return restore.end_block * self._slab.block_tokens >= restore.sequence.matched

    def _chunk_tokens(self, growth: GrowthSlice | None, restore: RestoreSlice | None) -> int:
        """As many as time allows, or the most where nobody else is kept waiting."""
        most = self._options.max_chunk_tokens
        if len(self.rows) == 1 and not self._admission.waiting:
            return most
        if not self.decoding:
            return min(most, self._budget.unhurried_tokens())
        spent_s = 0.0
        if growth is not None:
            spent_s += self._budget.growth.seconds_for(growth.planes)
        if restore is not None:
            spent_s += self._budget.restore.seconds_for(restore.end_block - restore.start_block)
        return min(most, self._budget.hurried_tokens(spent_s))

    def _preparing(self) -> list[Sequence]:
        waiting = self.rows[self.decoding :]
        return [sequence for sequence in waiting if not sequence.is_cancelled]

    def _room(
        self,
        decode: tuple[Sequence, ...],
        restore: RestoreSlice | None,
        prefill: PrefillChunk | None,
    ) -> tuple[int, int]:
        """Rows and positions that the step needs.

        For whole prompts and, while nobody decodes, for all of them, so that growth is seldom.
        """
        touched = [part.sequence for part in (restore, prefill) if part is not None]
        if not self.decoding:
            touched = self._preparing()
        rows = [len(decode), *(_last_row(sequence) + 1 for sequence in touched)]
        ends = [sequence.length + 1 for sequence in decode]
        ends += [sequence.prompt_tokens for sequence in touched]
        if restore is not None:
            ends.append(restore.end_block * self._slab.block_tokens)
        return max(rows), max(ends, default=0)


def _last_row(sequence: Sequence) -> int:
    """The last row of its family: all of them are filled when its prompt is complete."""
    return max(each.row for each in sequence.family)
