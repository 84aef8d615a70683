"""Shapes of load: when requests are due, in seconds from the start, in order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["at_once", "bursts", "constant", "ramp"]


def at_once(requests: int) -> Iterator[float]:
    """All at the start."""
    return iter([0.0] * requests)


def constant(per_second: float, seconds: float) -> Iterator[float]:
    """Evenly spaced, the first at the start."""
    return (n / per_second for n in range(math.ceil(per_second * seconds)))


def bursts(size: int, every_s: float, seconds: float) -> Iterator[float]:
    """`size` at the same moment, again and again."""
    starts = (n * every_s for n in range(math.ceil(seconds / every_s)))
    return (start for start in starts for _ in range(size))


def ramp(first_per_second: float, last_per_second: float, seconds: float) -> Iterator[float]:
    """A rate that rises (or falls) linearly: the n-th is due when n have become due on average."""
    slope = (last_per_second - first_per_second) / seconds
    due = (first_per_second + last_per_second) / 2 * seconds
    for n in range(math.floor(due + 1e-9)):
        if abs(slope) < 1e-12:
            yield n / first_per_second
        else:  # first * t + slope * t^2 / 2 = n
            root = math.sqrt(max(0.0, first_per_second**2 + 2 * slope * n))
            yield (root - first_per_second) / slope
