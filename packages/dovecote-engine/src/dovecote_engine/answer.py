"""The text of one choice: tokens in, what may be shown of it out.

    token --stream--> characters --stop matcher--> shown
      `--- its log probabilities: shown with its first character, dropped if that is cut off

So what is shown and its log probabilities always belong together. Does not know requests or rows.
Engine thread only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.stop import StopMatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.request import TokenLogprobs
    from dovecote_engine.text_stream import TextStream

__all__ = ["AnswerText", "Piece"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What can be shown in addition. `is_stopped`: a stop string is complete, nothing follows."""

    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    is_stopped: bool = False


class AnswerText:
    """One choice's text so far."""

    def __init__(self, stream: TextStream, stops: Sequence[str] = ()) -> None:
        self._stream = stream
        self._matcher = StopMatcher(stops)
        self._held: deque[tuple[int, TokenLogprobs]] = deque()
        """Log probabilities with the position at which their token's text begins."""
        self._come = 0
        self._shown = 0

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> Piece:
        """What the token adds."""
        if logprobs is not None:
            self._held.append((self._come, logprobs))
        return self._show(self._pass(self._stream.push(token)))

    def finish(self) -> Piece:
        """What is left when no token follows; nothing after a stop."""
        if self._matcher.is_stopped:
            return Piece()
        text = self._pass(self._stream.finish())
        piece = self._show(text + self._matcher.finish())
        if piece.is_stopped:
            return piece
        # Tokens without text, such as special ones, may be left.
        rest = tuple(logprobs for _, logprobs in self._held)
        self._held.clear()
        return Piece(piece.text, piece.logprobs + rest)

    def _pass(self, text: str) -> str:
        self._come += len(text)
        return self._matcher.push(text)

    def _show(self, text: str) -> Piece:
        self._shown += len(text)
        shown = []
        while self._held and self._held[0][0] < self._shown:
            shown.append(self._held.popleft()[1])
        return Piece(text, tuple(shown), self._matcher.is_stopped)
