"""Decides what each step runs, and which sequence is in which row.

    rows   [0, decoding)          sequences that decode: one batch
           [decoding, len(rows))  sequences that restore or prefill

Both ranges are compact. A row that leaves is filled by the last of its range; the memory moves that
this takes are returned, for the slab to do.

Order: sequences start in the order of submission, but two of one agent never run at once. Prompt
chunks go round among the rows that prefill, so that a short prompt does not wait for a long one.

Does not know the model, MLX or how long anything takes beyond what `note_*` tells it.
Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dovecote_engine.pace import Pace
from dovecote_engine.plan import Plan, PrefillChunk, RestoreSlice
from dovecote_engine.sequence import NO_ROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_engine.admission import Admission
    from dovecote_engine.options import EngineOptions
    from dovecote_engine.sequence import Sequence
    from dovecote_engine.slab import Slab

# A chunk much shorter than this costs as much as it, since the weights are read once either way
# (SmolLM2-135M on two cores: 1 token 27 ms, 16 tokens 64, 32 tokens 98, 64 tokens 159).
_LEAST_CHUNK_TOKENS = 32
_FIRST_CHUNK_TOKENS = 64
_FIRST_RESTORE_BLOCKS = 8


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
        slab: Slab,
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
        self._prefill_pace = Pace(_FIRST_CHUNK_TOKENS, _LEAST_CHUNK_TOKENS)
        self._restore_pace = Pace(_FIRST_RESTORE_BLOCKS, 1)

    def plan(self) -> Plan:
        """The next step. Starts waiting sequences where there are rows; changes nothing else."""
        self._steps += 1
        cancelled = self._admission.take_cancelled(self.rows)
        self._start_waiting()
        decode = tuple(self.rows[: self.decoding])
        if all(sequence.is_cancelled for sequence in decode):
            decode = ()
        restore = self._plan_restore()
        prefill = self._plan_prefill(restore)
        return Plan(
            cancelled=cancelled,
            restore=restore,
            prefill=prefill,
            decode=decode,
            rows=len(self.rows),
            capacity=self._capacity(decode, restore, prefill),
        )

    def note_restore(self, blocks: int, seconds: float) -> None:
        """Learns how fast restores are."""
        self._restore_pace.record(blocks, seconds)

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """Learns how fast prefill is."""
        self._prefill_pace.record(tokens, seconds)

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
        while len(self.rows) < self._options.max_rows:
            busy = {row.request.agent for row in self.rows if row.request.agent is not None}
            sequence = self._admission.take_next(busy, self._fits)
            if sequence is None:
                return
            sequence.start(len(self.rows), self._clock())
            self.rows.append(sequence)

    def _fits(self, sequence: Sequence) -> bool:
        """Whether one more row fits, with every row as long as it may get."""
        if not self.rows:
            return True
        rows = (*self.rows, sequence)
        tokens = max(max(row.extent.planned_tokens, row.length + 1) for row in rows)
        return self._slab.can_reserve(len(rows), tokens)

    def _plan_restore(self) -> RestoreSlice | None:
        sequence = next((row for row in self._preparing() if row.phase == "restoring"), None)
        if sequence is None:
            return None
        blocks = self._restore_pace.units_in(self._options.restore_seconds)
        last = -(-sequence.matched // self._slab.block_tokens)
        start = sequence.restored_blocks
        end = min(last, start + blocks) if self.decoding else last
        return RestoreSlice(sequence, start, end)

    def _plan_prefill(self, restore: RestoreSlice | None) -> PrefillChunk | None:
        """A chunk for the row that was served least recently.

        One whose restore ends in this step counts as restored.
        """
        ready = [row for row in self._preparing() if row.phase == "prefilling"]
        if restore is not None and self._completes(restore):
            ready.append(restore.sequence)
        if not ready:
            return None
        sequence = min(ready, key=lambda row: row.served_at_step)
        sequence.served_at_step = self._steps
        start = max(sequence.length, sequence.matched)
        return PrefillChunk(
            sequence, start, min(sequence.prompt_tokens, start + self._chunk_tokens())
        )

    def _completes(self, restore: RestoreSlice) -> bool:
        return restore.end_block * self._slab.block_tokens >= restore.sequence.matched

    def _chunk_tokens(self) -> int:
        if not self.decoding:
            return self._options.max_chunk_tokens
        tokens = self._prefill_pace.units_in(self._options.chunk_seconds)
        return min(tokens, self._options.max_chunk_tokens)

    def _preparing(self) -> list[Sequence]:
        waiting = self.rows[self.decoding :]
        return [sequence for sequence in waiting if not sequence.is_cancelled]

    def _capacity(
        self,
        decode: tuple[Sequence, ...],
        restore: RestoreSlice | None,
        prefill: PrefillChunk | None,
    ) -> int:
        ends = [sequence.length + 1 for sequence in decode]
        if restore is not None:
            ends.append(restore.end_block * self._slab.block_tokens)
        if prefill is not None:
            ends.append(prefill.end)
        return max(ends, default=0)
