"""What may be set about the engine, with the reason for each default.

Does not know where the settings come from.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 1 << 30

_COUNTS = (
    "max_rows",
    "max_waiting",
    "max_waiting_tokens",
    "slab_bytes",
    "default_max_tokens",
    "max_chunk_tokens",
)
_TIMES = (
    "queue_seconds",
    "chunk_seconds",
    "restore_seconds",
    "flush_seconds",
    "slab_idle_seconds",
)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Limits of the engine. Raises: ValueError if one of them leaves no room to work."""

    max_rows: int = 8
    """Sequences that run at once; the skinny matrix kernels are made for up to 8."""
    max_waiting: int = 64
    """Requests that wait for a row; one more is refused."""
    max_waiting_tokens: int = 65536
    """Prompt tokens of the requests that wait, unless it is one alone: SmolLM2-135M on two cores
    computes about that many in four minutes."""
    queue_seconds: float = 300.0
    """How long a request may wait for a row; clients give up after ten minutes."""
    pool_limit: float = 0.95
    """Share of the pool's frames that running and waiting requests may have between them. The rest
    stays for the chains of idle agents."""
    pin_limit: float = 0.5
    """Share of the pool's frames that pinned agents may have between them. Pins hold no running
    request up, but the chains of all other agents live in what is left."""
    slab_bytes: int = 4 * _GIB
    """Memory for the K and V of the running rows."""
    default_max_tokens: int = 1024
    """What is reserved for the answer of a request that states no `max_tokens`."""
    gap_ratio: float = 1.8
    """How many times as long as without it the running rows may wait for a token while prompts are
    computed or restored beside them. The promise is 3, at the 99th percentile: of rows alone that
    is 1.5 to 1.8 times their median gap, on a machine that others share."""
    chunk_seconds: float = 0.25
    """How long a piece of a prompt may keep the running rows waiting in any case, and others whose
    prompts are being computed too."""
    max_chunk_tokens: int = 512
    """The longest piece of a prompt, when nobody waits: a cancel is noticed between pieces."""
    restore_seconds: float = 0.05
    """How long a piece of a restore may keep the running rows waiting."""
    flush_seconds: float = 30.0
    """How long the engine is idle before short blocks go to disk; if it never is, they go when they
    are once or twice as old. A chain that goes on before never writes them, and a kill before costs
    their tokens, fewer than a block for each agent."""
    slab_idle_seconds: float = 60.0
    """How long the engine is idle before it gives the slab's memory back."""
    slab_idle_bytes: int = _GIB // 8
    """A slab of no more than that is kept however long the engine is idle. Making one anew costs
    the next request a page fault for every 4 KiB: for one row of 2,000 tokens of SmolLM2-135M
    about 5 ms on two idle cores and 36 on busy ones, where its restore takes 7."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in _TIMES:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if self.gap_ratio <= 1:
            raise ValueError("gap_ratio must be above 1")
        if not 0 < self.pool_limit <= 1:
            raise ValueError("pool_limit must be above 0 and at most 1")
        if not 0 <= self.pin_limit <= 1:
            raise ValueError("pin_limit must be 0 to 1")
