"""Whether so much of the pool is in active use that new work should go elsewhere.

    relaxed --active use above HIGH--> pressed --at or below LOW--> relaxed

Two marks, so that readiness does not flap around one. Does not know where the numbers come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dovecote_http.bridge.engine_like import PoolStatsLike

HIGH, LOW = 0.9, 0.8


class PoolPressure:
    """Remembers on which side of the marks the pool was last."""

    def __init__(self) -> None:
        self._is_pressed = False

    def update(self, pool: PoolStatsLike) -> bool:
        """Whether the pool is pressed now. In active use: under a lease, or promised to one."""
        active = (pool.leased + pool.promised) / max(1, pool.frames)
        self._is_pressed = active > (LOW if self._is_pressed else HIGH)
        return self._is_pressed
