"""Turns seconds into work: how much of a kind fits into a time, by what it took so far.

Does not know what the work is.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Unless told otherwise the best of the last few measurements counts: a single stall - a kernel
# compiled at first use, a busy machine - does not shrink the next pieces, and a lasting change is
# followed after as many.
_REMEMBERED = 4
# A pace that was measured on little says little of much: pieces grow to this multiple at most.
_MOST_GROWTH = 4


class Pace:
    """Units a second, measured; `first_guess` units are due until there is a measurement.

    `judge` makes one number of the last few.
    """

    def __init__(
        self, first_guess: int, minimum: int, judge: Callable[[Sequence[float]], float] = max
    ) -> None:
        self._judge = judge
        self._first_guess = first_guess
        self._minimum = minimum
        self._per_second: deque[float] = deque(maxlen=_REMEMBERED)
        self._units: deque[int] = deque(maxlen=_REMEMBERED)

    def record(self, units: int, seconds: float) -> None:
        """Learns from work that was done."""
        self._units.append(units)
        self._per_second.append(units / max(seconds, 1e-6))

    def units_in(self, seconds: float) -> int:
        """How many units that time allows, at least the minimum."""
        if not self._per_second:
            return self._first_guess
        units = int(self._judge(self._per_second) * seconds)
        return max(self._minimum, min(units, _MOST_GROWTH * max(self._minimum, *self._units)))

    def seconds_for(self, units: int) -> float:
        """How long that many units take, 0 until there is a measurement."""
        return units / self._judge(self._per_second) if self._per_second else 0.0
