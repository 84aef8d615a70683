"""A response's body, or the events of its stream, and what is remembered of it.

    response.created response.in_progress+
    ( response.output_item.added
        ( response.content_part.added  (response.output_text.delta | .reasoning_text.delta)*  .done
          response.content_part.done
        | response.function_call_arguments.delta*  .done )
      response.output_item.done )*
    response.completed | response.incomplete

One item is open at a time. Every event has the next `sequence_number`. Does not know HTTP or the
engine's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import structs

from dovecote_http.answers.sse import event_frame
from dovecote_http.responses.bodies import (
    CallItem,
    ErrorEvent,
    Incomplete,
    ItemEvent,
    MessageItem,
    OutputText,
    PartEvent,
    ReasoningItem,
    ReasoningText,
    ResponseEvent,
    TextEvent,
    usage_body,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dovecote_engine.request import Started, ToolCallDelta, Usage
    from dovecote_http.answers.replies import Choice, FinishWord, Piece
    from dovecote_http.errors import ApiError
    from dovecote_http.responses.bodies import OutputItem, Response, Status

__all__ = ["ResponseReplies"]

Kind = Literal["reasoning", "message", "function_call"]

_IDS: dict[Kind, str] = {"reasoning": "rs", "message": "msg", "function_call": "fc"}
_DELTAS: dict[Kind, str] = {
    "reasoning": "response.reasoning_text",
    "message": "response.output_text",
    "function_call": "response.function_call_arguments",
}


@dataclass(slots=True)
class _OpenItem:
    """An item as far as it has come. `call_id` and `name` belong to a call."""

    kind: Kind
    id: str
    index: int
    text: str = ""
    call_id: str = ""
    name: str = ""

    def item(self, status: Status) -> OutputItem:
        """It as an item of the response; one that has only begun has no content."""
        begun = status == "in_progress"
        if self.kind == "message":
            return MessageItem(self.id, status, [] if begun else [OutputText(self.text)])
        if self.kind == "reasoning":
            return ReasoningItem(self.id, status, [] if begun else [ReasoningText(self.text)])
        return CallItem(self.id, status, self.call_id, self.name, self.text)

    @property
    def part(self) -> OutputText | ReasoningText:
        """Its only part."""
        return OutputText(self.text) if self.kind == "message" else ReasoningText(self.text)


class ResponseReplies:
    """The bytes of one response. `blank` is what it is before anything was computed, `remember` is
    told the whole of it before its client is.
    """

    def __init__(self, blank: Response, remember: Callable[[Response], None]) -> None:
        self._response = blank
        self._remember = remember
        self._sequence = 0
        self._items: list[OutputItem] = []
        self._open: _OpenItem | None = None
        self._reason: FinishWord = "stop"

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """As `Replies.whole`."""
        (choice,) = choices
        if choice.reasoning:
            self._enter("reasoning").text = choice.reasoning
        if choice.text or not (choice.reasoning or choice.tool_calls):
            self._enter("message").text = choice.text
        for call in choice.tool_calls:
            item = self._enter("function_call")
            item.call_id, item.name, item.text = call.id, call.name, call.arguments
        self._close(choice.reason)
        self._complete(usage)
        return msgspec.json.encode(self._response)

    def opening(self, index: int, started: Started) -> bytes:  # noqa: ARG002 - as `Replies`
        """The events that tell of the response, unless a sign of life had to come first."""
        return b"" if self._sequence else self._begin()

    def piece(self, index: int, piece: Piece) -> bytes:  # noqa: ARG002 - as `Replies`
        """As `Replies.piece`."""
        frames = b""
        if piece.reasoning:
            frames += self._gain("reasoning", piece.reasoning)
        if piece.text:
            frames += self._gain("message", piece.text)
        return frames + b"".join(map(self._call, piece.tool_calls))

    def finish(self, index: int, reason: FinishWord, stop: str | None) -> bytes:  # noqa: ARG002
        """As `Replies.finish`."""
        frames = b""
        if self._open is None and not self._items:
            _, frames = self._opened("message")  # an answer has at least one item
        return frames + self._closed(reason)

    def ending(self, usage: Usage) -> bytes:
        """As `Replies.ending`."""
        self._complete(usage)
        return self._tell(f"response.{self._response.status}")

    def sign_of_life(self) -> bytes:
        """An event that changes nothing: not all clients count comments."""
        return self._tell("response.in_progress") if self._sequence else self._begin()

    def failure(self, error: ApiError) -> bytes:
        """As `Replies.failure`."""
        body = error.body
        event = ErrorEvent("error", self._next(), body.code, body.message, body.param, body)
        return event_frame("error", msgspec.json.encode(event))

    def _begin(self) -> bytes:
        return self._tell("response.created") + self._tell("response.in_progress")

    def _call(self, delta: ToolCallDelta) -> bytes:
        frames = b""
        if delta.id is not None:
            frames = self._closed("tool_calls")
            frames += self._opened("function_call", delta.id, delta.name or "")[1]
        return frames + (self._gain("function_call", delta.arguments) if delta.arguments else b"")

    def _gain(self, kind: Kind, delta: str) -> bytes:
        """Adds to the open item of that kind, which is opened if there is none."""
        item, frames = self._open, b""
        if item is None or item.kind != kind:
            frames = self._closed("stop")
            item, opened = self._opened(kind)
            frames += opened
        item.text += delta
        return frames + self._text_event(item, "delta", delta=delta)

    def _opened(self, kind: Kind, call_id: str = "", name: str = "") -> tuple[_OpenItem, bytes]:
        item = self._enter(kind)
        item.call_id, item.name = call_id, name
        frames = self._item_event(item, "added", item.item("in_progress"))
        if kind != "function_call":
            frames += self._part_event(item, "added")
        return item, frames

    def _closed(self, reason: FinishWord) -> bytes:
        item = self._open
        done = self._close(reason)
        if item is None or done is None:
            return b""
        if item.kind == "function_call":
            frames = self._text_event(item, "done", name=item.name, arguments=item.text)
        else:
            frames = self._text_event(item, "done", text=item.text)
            frames += self._part_event(item, "done")
        return frames + self._item_event(item, "done", done)

    def _enter(self, kind: Kind) -> _OpenItem:
        """Closes the open item and opens one of that kind."""
        self._close("stop")
        index = len(self._items)
        suffix = self._response.id.removeprefix("resp_")
        self._open = _OpenItem(kind, f"{_IDS[kind]}_{suffix}{index}", index)
        return self._open

    def _close(self, reason: FinishWord) -> OutputItem | None:
        """The open item, now complete or cut off."""
        self._reason = reason
        if self._open is None:
            return None
        done = self._open.item("incomplete" if reason == "length" else "completed")
        self._items.append(done)
        self._open = None
        return done

    def _complete(self, usage: Usage) -> None:
        is_cut = self._reason == "length"
        self._response = structs.replace(
            self._response,
            status="incomplete" if is_cut else "completed",
            incomplete_details=Incomplete("max_output_tokens") if is_cut else None,
            output=self._items,
            usage=usage_body(usage),
        )
        self._remember(self._response)

    def _tell(self, kind: str) -> bytes:
        return self._frame(ResponseEvent(kind, self._next(), self._response))

    def _item_event(self, item: _OpenItem, what: str, shown: OutputItem) -> bytes:
        kind = f"response.output_item.{what}"
        return self._frame(ItemEvent(kind, self._next(), item.index, shown))

    def _part_event(self, item: _OpenItem, what: str) -> bytes:
        kind = f"response.content_part.{what}"
        return self._frame(PartEvent(kind, self._next(), item.id, item.index, 0, item.part))

    def _text_event(self, item: _OpenItem, what: str, **told: str) -> bytes:
        is_call = item.kind == "function_call"
        event = TextEvent(
            f"{_DELTAS[item.kind]}.{what}",
            self._next(),
            item.id,
            item.index,
            content_index=None if is_call else 0,
            logprobs=[] if item.kind == "message" else None,
            **told,
        )
        return self._frame(event)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    @staticmethod
    def _frame(event: ResponseEvent | ItemEvent | PartEvent | TextEvent) -> bytes:
        return event_frame(event.type, msgspec.json.encode(event))
