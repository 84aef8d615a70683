"""Finds stop strings in a text that comes in pieces, and keeps every part of one from getting out.

What decides is the text, not how it was cut: the first stop string to be complete ends it, the
longest of those that are complete at the same character. A Knuth-Morris-Pratt automaton for each of
them advances by a character at a time; the longest partial match is what has to be held back.

Does not know tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["StopMatcher"]


class _Automaton:
    """How much of one string the text's end matches."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self._shorter = _borders(stop)
        self.matched = 0

    def advance(self, character: str) -> bool:
        """Whether the string is complete with this character. It is then used up."""
        while self.matched and character != self.stop[self.matched]:
            self.matched = self._shorter[self.matched - 1]
        if character == self.stop[self.matched]:
            self.matched += 1
        return self.matched == len(self.stop)


class StopMatcher:
    """A filter for one text. `stops` are not empty strings; without any, everything passes.

    `stopped_by` is the one of them that ended it.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._automata = [_Automaton(stop) for stop in stops]
        self._held = ""
        self.stopped_by: str | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether the text has ended."""
        return self.stopped_by is not None

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def push(self, text: str) -> str:
        """What may be shown now that `text` has come. Nothing more after a stop."""
        if self.is_stopped or not self._automata:
            return "" if self.is_stopped else text
        known, self._held = self._held + text, ""
        for end in range(len(known) - len(text), len(known)):
            self.stopped_by = self._advance(known[end])
            if self.stopped_by is not None:
                return known[: end + 1 - len(self.stopped_by)]
        shown = len(known) - max(automaton.matched for automaton in self._automata)
        self._held = known[shown:]
        return known[:shown]

    def finish(self) -> str:
        """What was held back, since no stop can become complete any more."""
        rest, self._held = self._held, ""
        return rest

    def _advance(self, character: str) -> str | None:
        """The longest stop that is complete with this character, if one is."""
        complete = [each.stop for each in self._automata if each.advance(character)]
        return max(complete, key=len, default=None)


def _borders(text: str) -> list[int]:
    """For each end, the length of the longest proper prefix that the text ends with there."""
    borders = [0] * len(text)
    length = 0
    for end in range(1, len(text)):
        while length and text[end] != text[length]:
            length = borders[length - 1]
        length += text[end] == text[length]
        borders[end] = length
    return borders
