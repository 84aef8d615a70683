"""Takes an answer's text apart: reasoning, visible text, tool calls.

    text --think start--> reasoning --think end--> text --call start--> a call --call end--> text

Space around reasoning and calls belongs to neither: it is left out. Between words it stays. A call
that turns out to be none is visible text, tags included.

Does not know tokens or stop strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dovecote_engine.text.tool_calls import CallReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dovecote_engine.request import ToolCallDelta
    from dovecote_engine.text.tool_calls import CallFormat

__all__ = ["Section", "SectionReader", "Tags"]

Place = Literal["text", "reasoning", "call"]


@dataclass(frozen=True, slots=True)
class Tags:
    """What separates the sections. `think`: start and end; `calls` None: calls are text.

    `tools` are those on offer, in OpenAI's shape. `is_thinking`: the answer begins as reasoning.
    `takes_one_call`: the answer is over with the first call.
    """

    think: tuple[str, str] | None = None
    calls: CallFormat | None = None
    tools: Sequence[Mapping[str, object]] = ()
    is_thinking: bool = False
    takes_one_call: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """What can be shown in addition."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def __add__(self, other: Section) -> Section:
        return Section(
            self.text + other.text,
            self.reasoning + other.reasoning,
            self.tool_calls + other.tool_calls,
        )


class SectionReader:
    """One answer's text in, its sections out."""

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        self._place: Place = "reasoning" if tags.is_thinking else "text"
        self._unread = ""
        self._space = ""
        """Space that is dropped if a section ends or begins with it."""
        self._is_fresh = True
        """Whether nothing of the present section has been shown."""
        self._has_sections = tags.is_thinking
        self._call: CallReader | None = None
        self.calls = 0
        self.is_over = False

    @property
    def is_reasoning(self) -> bool:
        """Whether what comes next is reasoning, as far as is known."""
        return self._place == "reasoning"

    @property
    def is_plain(self) -> bool:
        """Whether what comes next is visible text, and no tag may have begun."""
        return self._place == "text" and not self._unread

    @property
    def held(self) -> int:
        """Characters whose section is not known yet."""
        return len(self._unread) + len(self._space)

    def push(self, text: str) -> Section:
        """What `text` completes. Nothing once the answer `is_over`."""
        shown = Section()
        self._unread += text
        while not self.is_over:
            tag, at = self._next_tag()
            if tag is None:
                passed, self._unread = self._unread[:at], self._unread[at:]
                return shown + self._pass(passed)
            passed, self._unread = self._unread[:at], self._unread[at + len(tag) :]
            shown += self._pass(passed) + self._turn(tag)
        return shown

    def finish(self) -> Section:
        """What is left when nothing follows."""
        if self.is_over:
            return Section()
        rest, self._unread = self._unread, ""
        shown = self._pass(rest)
        if self._place == "call":
            return shown + self._end_call("")
        space, self._space = self._space, ""
        if self._place == "text" and not (self._is_fresh and self._has_sections):
            shown += Section(text=space)
        return shown

    def _wanted(self) -> list[str]:
        """The tags that would end the present section."""
        tags = self._tags
        if self._place == "call":
            return [tags.calls.end] if tags.calls is not None and tags.calls.end else []
        if self._place == "reasoning":
            return [tags.think[1]] if tags.think is not None else []
        starts = [] if tags.think is None else [tags.think[0]]
        return starts if tags.calls is None else [*starts, tags.calls.start]

    def _next_tag(self) -> tuple[str | None, int]:
        """The next complete tag and where it begins; else None, and where one may begin."""
        wanted = self._wanted()
        found = [(at, tag) for tag in wanted if (at := self._unread.find(tag)) >= 0]
        if found:
            at, tag = min(found)
            return tag, at
        begun = max((_overlap(self._unread, tag) for tag in wanted), default=0)
        return None, len(self._unread) - begun

    def _pass(self, text: str) -> Section:
        """Shows a part of the present section."""
        if self._place == "call":
            assert self._call is not None  # noqa: S101 - the place says so
            return Section(tool_calls=self._call.push(text))
        whole = self._space + text
        shown = whole.rstrip()
        if self._is_fresh and self._has_sections:
            shown = shown.lstrip()
        self._space = whole[len(whole.rstrip()) :]
        if not shown:
            return Section()
        self._is_fresh = False
        return Section(text=shown) if self._place == "text" else Section(reasoning=shown)

    def _turn(self, tag: str) -> Section:
        """Goes from one section to the next at a tag."""
        if self._place == "call":
            return self._end_call(tag)
        if self._tags.calls is not None and tag == self._tags.calls.start and not self.is_reasoning:
            self._place = "call"
            self._call = CallReader(self._tags.calls, self._tags.tools, self.calls)
            return Section()
        self._begin("text" if self.is_reasoning else "reasoning")
        return Section()

    def _begin(self, place: Place) -> None:
        self._place = place
        self._space, self._is_fresh, self._has_sections = "", True, True

    def _end_call(self, end: str) -> Section:
        call, self._call = self._call, None
        assert call is not None and self._tags.calls is not None  # noqa: S101, PT018 - as in `_pass`
        self._place = "text"
        deltas = call.finish()
        if deltas is None:
            return self._pass(self._tags.calls.start + call.body + end)
        self.calls += max(1, len(deltas))
        self._begin("text")
        self.is_over = self._tags.takes_one_call and bool(end)
        return Section(tool_calls=deltas)


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    longest = min(len(text), len(tag) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(tag[:size])), 0)
