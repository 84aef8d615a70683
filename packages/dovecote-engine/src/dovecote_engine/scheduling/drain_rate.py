"""How fast requests leave, and so how long those who are refused should stay away.

Only time in which there was work counts: an idle hour before a rush says nothing about it.

Does not know requests.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_S, MOST_S = 1.0, 60.0
"""Bounds of what is answered. OpenAI's clients do not obey more than two minutes."""

_REMEMBERED = 32


class DrainRate:
    """Seconds from one departure to the next, over the last few."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._gaps: deque[float] = deque(maxlen=_REMEMBERED)

    def begin(self) -> None:
        """There is work again, after a time without."""
        self._since = self._clock()

    def note_departure(self) -> None:
        """A request has left."""
        now = self._clock()
        self._gaps.append(now - self._since)
        self._since = now

    def seconds_for(self, departures: int) -> float:
        """How long that many departures take; a second each until one was seen."""
        each = sum(self._gaps) / len(self._gaps) if self._gaps else LEAST_S
        return min(MOST_S, max(LEAST_S, departures * each))
