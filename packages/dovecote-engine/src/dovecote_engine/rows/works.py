"""Which rows, forward and keeper go together, by what a model keeps of its tokens.

    K and V                    a slab          one forward for all rows    the pool
    and a recurrent state      RecurrentRows   a forward for each row      the pool, checkpoints
    anything else              RowCaches       a forward for each row      nothing

Does not know requests. Engine thread only.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.rows.forward import BatchForward, RowForward
from dovecote_engine.rows.keeper import NothingKept, PoolKeeper
from dovecote_engine.rows.recurrent_rows import RecurrentRows
from dovecote_engine.rows.row_caches import RowCaches
from dovecote_engine.rows.slab import Slab
from dovecote_engine.rows.state_keeper import StateKeeper

if TYPE_CHECKING:
    from dovecote_cache import Checkpoints, Pool
    from dovecote_engine.agents.agents import Agents
    from dovecote_engine.counters import Counters
    from dovecote_engine.options import EngineOptions
    from dovecote_engine.rows.forward import Forward
    from dovecote_engine.rows.keeper import Keeper
    from dovecote_engine.served import Loaded

__all__ = ["Works", "assemble"]

_log = logging.getLogger(__name__)

_FIRST_ROW_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Works:
    """Where a model's rows are and how it runs over them."""

    rows: Slab | RecurrentRows | RowCaches
    forward: Forward

    @property
    def checkpoints(self) -> Checkpoints | None:
        """Where the rows' recurrent states are kept, if they have some."""
        return self.rows.checkpoints if isinstance(self.rows, RecurrentRows) else None

    def keeper(self, agents: Agents, counters: Counters) -> Keeper:
        """What keeps the rows' blocks."""
        if isinstance(self.rows, Slab):
            return PoolKeeper(self.rows, agents, counters)
        if isinstance(self.rows, RecurrentRows):
            return StateKeeper(self.rows, agents, counters)
        return NothingKept()


def assemble(loaded: Loaded, pool: Pool, options: EngineOptions) -> Works:
    """What fits the model. Runs it over a few tokens. Raises: OSError from the checkpoints."""
    if not loaded.uncached and not loaded.is_recurrent:
        slab = Slab(loaded.geometry, options.slab_bytes, options.max_chunk_tokens)
        forward = BatchForward(loaded.model, slab)
        _make_first_row(slab, min(loaded.context_tokens, _FIRST_ROW_TOKENS), options)
        return Works(slab, forward)
    rows = _rows(loaded, pool, options)
    return Works(rows, RowForward(loaded.model, rows))


def _make_first_row(slab: Slab, tokens: int, options: EngineOptions) -> None:
    """Room for a first request, so that it does not wait for a page fault every 4 KiB.

    Only as much as an idle engine keeps anyway.
    """
    slab.reserve(1, tokens)
    if slab.bytes > options.slab_idle_bytes:
        slab.reset()


def _rows(loaded: Loaded, pool: Pool, options: EngineOptions) -> RowCaches:
    if loaded.uncached:
        return RowCaches(loaded.model, options.slab_bytes, loaded.geometry.block_tokens)
    rows = RecurrentRows(loaded.model, options.slab_bytes, loaded.geometry, pool)
    state_bytes = rows.shape.size_bytes
    if not rows.checkpoints.can_hold(state_bytes):
        _log.warning("the pool is too small to keep a state of %d bytes: no hits", state_bytes)
    return rows
