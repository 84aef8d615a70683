"""Keeps what a sequence of a model with recurrent state computed: whole blocks, and checkpoints.

    prompt                     |-- ... --|stop|-- ... --|      at most one, where `stop` says
    answer                     |-- ... --|last|-- rest --|     at most one, at its last whole block

While the answer grows the state at its last block's end is held, and kept when the turn is over:
two checkpoints a turn, however long. A short block has no checkpoint, so none is sealed.

Does not know plans or events. Engine thread only.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from dovecote_cache import CacheError
from dovecote_engine.rows.keeper import PoolKeeper
from dovecote_engine.scheduling.sequence import NO_ROW

if TYPE_CHECKING:
    from dovecote_engine.agents.agents import Agents
    from dovecote_engine.agents.origin import Origin
    from dovecote_engine.counters import Counters
    from dovecote_engine.rows.recurrent_rows import RecurrentRows
    from dovecote_engine.rows.row_state import Snapshot
    from dovecote_engine.scheduling.sequence import Sequence

__all__ = ["StateKeeper"]

_log = logging.getLogger(__name__)


class StateKeeper(PoolKeeper):
    """The way from the rows to the pool, its checkpoints and the book."""

    def __init__(self, rows: RecurrentRows, agents: Agents, counters: Counters) -> None:
        super().__init__(rows, agents, counters)
        self._rows = rows

    def seal_whole_blocks(self, sequence: Sequence) -> None:
        """Seals what filled up; at a block's end takes the state, and keeps it where it says so."""
        super().seal_whole_blocks(sequence)
        if sequence.length % self._rows.block_tokens:
            return
        snapshot = self._rows.snapshot(sequence.row, sequence.length)
        if sequence.length == sequence.stop:
            self._keep(sequence, snapshot)
            sequence.snapshot = None
        else:
            sequence.snapshot = snapshot

    def origin(self, sequence: Sequence) -> Origin:
        """As of any model. By now it shows whether the checkpoints were sound."""
        self._counters.checkpoint_misses = self._rows.checkpoints.missed
        self._note_errors()
        return super().origin(sequence)

    def close(self, sequence: Sequence) -> None:
        """Seals whole blocks, keeps the last state, notes the chain, releases the lease."""
        if sequence.row != NO_ROW:
            super().seal_whole_blocks(sequence)
        if sequence.snapshot is not None:
            self._keep(sequence, sequence.snapshot)
        self._note_agent(sequence)
        self._note_errors()
        sequence.release()

    def _note_errors(self) -> None:
        """Of states that were put before: their files are written by another thread."""
        for error in self._rows.checkpoints.take_errors():
            self._counters.seal_errors += 1
            _log.warning("a state is not kept: %s", error)

    def _keep(self, sequence: Sequence, snapshot: Snapshot) -> None:
        began_s = time.perf_counter()
        try:
            if self._rows.keep(sequence.lease, snapshot, sequence.tokens):
                self._counters.checkpoints += 1
        except (CacheError, OSError, ValueError, MemoryError) as error:
            self._counters.seal_errors += 1
            _log.warning("request %s: its state is not kept: %s", sequence.id, error)
        self._counters.seal_seconds += time.perf_counter() - began_s
