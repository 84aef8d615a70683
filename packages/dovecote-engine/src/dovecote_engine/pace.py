"""Turns seconds into work: how much of a kind fits into a time, by what it took so far.

Does not know what the work is.
"""

from __future__ import annotations

# Weight of the newest measurement: prefill slows down as a prompt gets longer, and the estimate
# must follow within a few chunks.
_NEWEST = 0.4


class Pace:
    """Units a second, measured; `first_guess` units are due until there is a measurement."""

    def __init__(self, first_guess: int, minimum: int) -> None:
        self._first_guess = first_guess
        self._minimum = minimum
        self._per_second: float | None = None

    def record(self, units: int, seconds: float) -> None:
        """Learns from work that was done."""
        measured = units / max(seconds, 1e-6)
        if self._per_second is None:
            self._per_second = measured
        self._per_second += _NEWEST * (measured - self._per_second)

    def units_in(self, seconds: float) -> int:
        """How many units that time allows, at least the minimum."""
        if self._per_second is None:
            return self._first_guess
        return max(self._minimum, int(self._per_second * seconds))
