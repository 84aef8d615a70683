"""The text of one choice: tokens in, what may be shown of it out.

    token --stream--> characters --sections--> text --stop matcher--> shown
      |                             `--- reasoning, tool calls -----> shown
      `--- its log probabilities: shown with its first character, dropped if that is cut off

So what is shown and its log probabilities belong together; those of tags, reasoning and calls are
shown in their order, too. Does not know requests or rows.
Engine thread only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dovecote_engine.text.sections import Section
from dovecote_engine.text.stop import StopMatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.request import TokenLogprobs, ToolCallDelta
    from dovecote_engine.text.sections import SectionReader
    from dovecote_engine.text.text_stream import TextStream

__all__ = ["AnswerText", "Piece"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What can be shown in addition. `is_stopped`: nothing follows, since a stop string is complete
    or the one call that was allowed.
    """

    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    is_stopped: bool = False
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class AnswerText:
    """One choice's text so far."""

    def __init__(
        self,
        stream: TextStream,
        stops: Sequence[str] = (),
        sections: SectionReader | None = None,
    ) -> None:
        self._stream = stream
        self._sections = sections
        self._matcher = StopMatcher(stops)
        self._held: deque[tuple[int, TokenLogprobs]] = deque()
        """Log probabilities with the position at which their token's text begins."""
        self._come = 0
        self._shown = 0
        self.reasoning_tokens = 0
        self.content = ""
        self.reasoning = ""
        self.call_ids: list[str] = []

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> Piece:
        """What the token adds."""
        if logprobs is not None:
            self._held.append((self._come, logprobs))
        if self._sections is not None and self._sections.is_reasoning:
            self.reasoning_tokens += 1
        return self._show(self._pass(self._stream.push(token)))

    def finish(self) -> Piece:
        """What is left when no token follows; nothing after a stop."""
        if self._is_over:
            return Piece()
        section = self._pass(self._stream.finish())
        if self._sections is not None:
            section += self._stopped(self._sections.finish())
        piece = self._show(section + Section(self._matcher.finish()))
        if piece.is_stopped:
            return piece
        # Tokens without text, such as special ones, may be left.
        rest = tuple(logprobs for _, logprobs in self._held)
        self._held.clear()
        return replace(piece, logprobs=piece.logprobs + rest)

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended it, if one did."""
        return self._matcher.stopped_by

    @property
    def _is_over(self) -> bool:
        return self._matcher.is_stopped or (self._sections is not None and self._sections.is_over)

    def _pass(self, text: str) -> Section:
        self._come += len(text)
        section = Section(text) if self._sections is None else self._sections.push(text)
        return self._stopped(section)

    def _stopped(self, section: Section) -> Section:
        """The section with its text as far as no stop string is in it. A stop ends everything."""
        if self._matcher.is_stopped:
            return Section()
        return replace(section, text=self._matcher.push(section.text))

    def _show(self, section: Section) -> Piece:
        self._shown = max(self._shown, self._position(section))
        shown = []
        while self._held and self._held[0][0] < self._shown:
            shown.append(self._held.popleft()[1])
        self.content += section.text
        self.reasoning += section.reasoning
        self.call_ids += [each.id for each in section.tool_calls if each.id is not None]
        return Piece(
            section.text, tuple(shown), self._is_over, section.reasoning, section.tool_calls
        )

    def _position(self, section: Section) -> int:
        """How many of the characters that came have been decided on."""
        if self._sections is None or self._matcher.is_stopped:
            return self._shown + len(section.text)
        return self._come - self._sections.held - self._matcher.held
