"""An agent as callers see it, and what they may change of it: plain values.

Does not know the book or the pool.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent at one moment. Times are unix seconds; bytes are those of its frames in the pool."""

    name: str
    model: str
    tokens: int
    """Length of its chain, cached or not."""
    cached_tokens: int
    """How many of them are in the pool."""
    bytes: int
    own_bytes: int
    pinned_bytes: int
    created: float
    last_used: float
    uses: int
    hit_tokens: int
    pinned: bool
    ttl_s: float | None
    expires: float | None
    forked_from: str | None
    busy: bool

    @property
    def shared_bytes(self) -> int:
        """Bytes of the blocks that others need, too."""
        return self.bytes - self.own_bytes


@dataclass(frozen=True, slots=True)
class AgentChanges:
    """What to change of an agent; None leaves a setting as it is. `ttl_s` inf: until deleted."""

    name: str | None = None
    pinned: bool | None = None
    ttl_s: float | None = None
