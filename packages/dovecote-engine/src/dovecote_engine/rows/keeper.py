"""Keeps what a sequence computed: seals its blocks in the pool, and notes its agent's chain.

Of a model that cannot be cached nothing is kept (`NothingKept`).

Keeping is never a reason for a request to fail: when the pool or the book cannot take more, that is
counted and the request goes on.

Does not know plans or events. Engine thread only.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from dovecote_cache import CacheError, PoolExhausted
from dovecote_engine.agents.origin import NEW
from dovecote_engine.scheduling.sequence import NO_ROW

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from dovecote_cache import RowPlanes
    from dovecote_engine.agents.agents import Agents
    from dovecote_engine.agents.origin import Origin
    from dovecote_engine.counters import Counters
    from dovecote_engine.rows.recurrent_rows import RecurrentRows
    from dovecote_engine.rows.slab import Slab
    from dovecote_engine.scheduling.sequence import Sequence

_log = logging.getLogger(__name__)


class Keeper(Protocol):
    """What is done with what a sequence computed."""

    def seal_whole_blocks(self, sequence: Sequence) -> None:
        """Keeps the blocks that filled up since the last call, if any."""

    def origin(self, sequence: Sequence) -> Origin:
        """Where what was found of its prompt came from."""

    def close(self, sequence: Sequence) -> None:
        """Keeps all that is left and releases the lease."""


class NothingKept:
    """For a model whose state the pool cannot hold."""

    def seal_whole_blocks(self, sequence: Sequence) -> None:
        """Nothing."""

    def origin(self, sequence: Sequence) -> Origin:  # noqa: ARG002 - the shape of `Keeper`
        """Nothing is ever found."""
        return NEW

    def close(self, sequence: Sequence) -> None:
        """Releases the lease, which holds nothing."""
        sequence.release()


class PoolKeeper:
    """The way from the slab to the pool and the book."""

    def __init__(self, slab: Slab | RecurrentRows, agents: Agents, counters: Counters) -> None:
        self._slab = slab
        self._agents = agents
        self._counters = counters

    def seal_whole_blocks(self, sequence: Sequence) -> None:
        """Seals the blocks that filled up since the last call, if any."""
        if sequence.has_whole_block(self._slab.block_tokens):
            self._write(sequence, sequence.lease.seal)

    def origin(self, sequence: Sequence) -> Origin:
        """Where what was found of its prompt came from. Before it is noted under its agent."""
        name, most = sequence.request.agent, sequence.prompt_tokens - 1
        if name is None:
            return NEW
        try:
            return self._agents.origin(name, sequence.lease.chain, sequence.matched, most)
        except CacheError as error:
            self._counters.book_errors += 1
            _log.warning("request %s: the agents' book cannot be read: %s", sequence.id, error)
            return NEW

    def close(self, sequence: Sequence) -> None:
        """Seals all that is left, notes the chain under the agent's name, releases the lease."""
        if sequence.row != NO_ROW and sequence.length > sequence.lease.tokens:
            self._write(sequence, sequence.lease.seal_short)
        self._note_agent(sequence)
        sequence.release()

    def _write(
        self, sequence: Sequence, seal: Callable[[npt.NDArray[np.uint32], RowPlanes], int]
    ) -> None:
        if not sequence.is_sealing:
            return
        before, began_s = sequence.lease.tokens, time.perf_counter()
        try:
            with self._slab.row_planes(sequence.row) as planes:
                seal(sequence.unsealed(), planes)
        except PoolExhausted:
            # The pool is smaller than the request, or the answer outgrew its reservation.
            sequence.is_sealing = False
        except (CacheError, MemoryError) as error:
            sequence.is_sealing = False
            self._counters.seal_errors += 1
            _log.warning("request %s is no longer kept: %s", sequence.id, error)
        # Of the prompt, and what is new: a part of a block that was found is sealed once more.
        kept = min(sequence.lease.tokens, sequence.prompt_tokens)
        sequence.kept_tokens += max(0, kept - before)
        self._counters.seal_seconds += time.perf_counter() - began_s

    def _note_agent(self, sequence: Sequence) -> None:
        name, lease = sequence.request.agent, sequence.lease
        chain = lease.chain
        if name is None or not chain.tokens:
            return
        try:
            self._agents.note_turn(name, chain, sequence.matched)
        except CacheError as error:
            self._counters.book_errors += 1
            _log.warning("request %s is not in the agents' book: %s", sequence.id, error)
