"""Which rows, forward and keeper go together: a slab and the pool, or mlx-lm's caches and nothing.

Does not know requests. Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.forward import BatchForward, RowForward
from dovecote_engine.keeper import NothingKept, PoolKeeper
from dovecote_engine.row_caches import RowCaches
from dovecote_engine.slab import Slab

if TYPE_CHECKING:
    from dovecote_engine.agents import Agents
    from dovecote_engine.counters import Counters
    from dovecote_engine.forward import Forward
    from dovecote_engine.keeper import Keeper
    from dovecote_engine.options import EngineOptions
    from dovecote_engine.rows import Rows
    from dovecote_engine.served import Loaded

__all__ = ["Works", "assemble"]


@dataclass(frozen=True, slots=True)
class Works:
    """Where a model's rows are and how it runs over them. `slab` is None if nothing is cached."""

    rows: Rows
    forward: Forward
    slab: Slab | None

    def keeper(self, agents: Agents, counters: Counters) -> Keeper:
        """What keeps the rows' blocks."""
        return NothingKept() if self.slab is None else PoolKeeper(self.slab, agents, counters)


def assemble(loaded: Loaded, options: EngineOptions) -> Works:
    """What fits the model. Runs it over a few tokens."""
    if loaded.uncached:
        tokens = loaded.geometry.block_tokens
        rows = RowCaches(loaded.model, options.slab_bytes, tokens)
        return Works(rows, RowForward(loaded.model, rows), None)
    slab = Slab(loaded.geometry, options.slab_bytes, options.max_chunk_tokens)
    return Works(slab, BatchForward(loaded.model, slab), slab)
