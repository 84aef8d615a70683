"""The bodies and events of Anthropic's Messages API.

    message_start (content_block_start content_block_delta* content_block_stop)* message_delta
    message_stop                                       ping anywhere after message_start

One block is open at a time: a thought, a text or a tool call. Does not know HTTP or the engine's
thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from dovecote_http.answers.sse import event_frame
from dovecote_http.anthropic.errors import error_payload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.request import Started, ToolCallDelta, Usage
    from dovecote_http.answers.replies import Answer, Choice, FinishWord, Piece, ToolCall
    from dovecote_http.errors import ApiError

__all__ = ["MessageReplies"]

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class UsageBody(Struct, frozen=True):
    """Token counts. The three of the input add up to the prompt.

    What was created is known at the end alone: a message that begins counts it as input.
    """

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int = 0


class TextBlock(Struct, frozen=True, tag_field="type", tag="text"):
    """A piece of text."""

    text: str


class ThinkingBlock(Struct, frozen=True, tag_field="type", tag="thinking"):
    """What was thought before the answer. Clients want a signature; there is nothing to sign."""

    thinking: str
    signature: str = ""


class ToolUseBlock(Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A tool call."""

    id: str
    name: str
    input: object


ContentBlock = TextBlock | ThinkingBlock | ToolUseBlock


class Message(Struct, frozen=True, tag_field="type", tag="message"):
    """An answer, whole or as it begins."""

    id: str
    role: str
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: UsageBody


class MessageStart(Struct, frozen=True, tag_field="type", tag="message_start"):
    """The stream's first event."""

    message: Message


class BlockStart(Struct, frozen=True, tag_field="type", tag="content_block_start"):
    """A block begins, empty."""

    index: int
    content_block: ContentBlock


class TextDelta(Struct, frozen=True, tag_field="type", tag="text_delta"):
    """What a text gains."""

    text: str


class ThinkingDelta(Struct, frozen=True, tag_field="type", tag="thinking_delta"):
    """What a thought gains."""

    thinking: str


class InputDelta(Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    """What the JSON of a tool's input gains."""

    partial_json: str


class BlockDelta(Struct, frozen=True, tag_field="type", tag="content_block_delta"):
    """The open block gains something."""

    index: int
    delta: TextDelta | ThinkingDelta | InputDelta


class BlockStop(Struct, frozen=True, tag_field="type", tag="content_block_stop"):
    """The open block is complete."""

    index: int


class Ending(Struct, frozen=True):
    """Why the message ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, frozen=True, tag_field="type", tag="message_delta"):
    """How the message ended, with the counts of all of it."""

    delta: Ending
    usage: UsageBody


class MessageStop(Struct, frozen=True, tag_field="type", tag="message_stop"):
    """The stream's last event."""


class Ping(Struct, frozen=True, tag_field="type", tag="ping"):
    """A sign of life."""


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping
Delta = TextDelta | ThinkingDelta | InputDelta


class MessageReplies:
    """One message's body or frames. `is_cut`: the context leaves less room than was asked for."""

    def __init__(self, answer: Answer, prompt_tokens: int, *, is_cut: bool) -> None:
        self._answer = answer
        self._prompt_tokens = prompt_tokens
        self._is_cut = is_cut
        self._has_begun = False
        self._open: type[Delta] | None = None
        self._index = -1
        self._ending = Ending("end_turn", None)

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """As `Replies.whole`."""
        (choice,) = choices
        ending = self._end(choice.reason, choice.stop)
        return msgspec.json.encode(self._message(_blocks(choice), ending, _usage(usage)))

    def opening(self, index: int, started: Started) -> bytes:  # noqa: ARG002 - as `Replies`
        """The message's beginning, unless a sign of life had to come first."""
        return self._begin(started.cached_tokens)

    def piece(self, index: int, piece: Piece) -> bytes:  # noqa: ARG002 - as `Replies`
        """As `Replies.piece`. Log probabilities have no place in a message."""
        frames = b""
        if piece.reasoning:
            frames += self._enter(ThinkingDelta, ThinkingBlock(""))
            frames += self._gain(ThinkingDelta(piece.reasoning))
        if piece.text:
            frames += self._enter(TextDelta, TextBlock(""))
            frames += self._gain(TextDelta(piece.text))
        return frames + b"".join(map(self._call, piece.tool_calls))

    def finish(self, index: int, reason: FinishWord, stop: str | None) -> bytes:  # noqa: ARG002
        """As `Replies.finish`: what is told of the end comes with the counts."""
        self._ending = self._end(reason, stop)
        return self._leave()

    def ending(self, usage: Usage) -> bytes:
        """As `Replies.ending`."""
        return _frame(MessageDelta(self._ending, _usage(usage))) + _frame(MessageStop())

    def sign_of_life(self) -> bytes:
        """A ping: the watchdogs of these clients count events, and skip comments."""
        return self._begin(0) + _frame(Ping())

    def failure(self, error: ApiError) -> bytes:
        """As `Replies.failure`."""
        return event_frame("error", error_payload(error))

    def _begin(self, cached_tokens: int) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        usage = UsageBody(self._prompt_tokens - cached_tokens, 0, cached_tokens)
        return _frame(MessageStart(self._message([], None, usage)))

    def _call(self, delta: ToolCallDelta) -> bytes:
        frames = b""
        if delta.id is not None:
            frames = self._leave() + self._enter(
                InputDelta, ToolUseBlock(delta.id, delta.name or "", {})
            )
        return frames + (self._gain(InputDelta(delta.arguments)) if delta.arguments else b"")

    def _enter(self, kind: type[Delta], block: ContentBlock) -> bytes:
        """Opens a block unless one of that kind is open."""
        if self._open is kind:
            return b""
        left = self._leave()
        self._open = kind
        self._index += 1
        return left + _frame(BlockStart(self._index, block))

    def _gain(self, delta: Delta) -> bytes:
        return _frame(BlockDelta(self._index, delta))

    def _leave(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _frame(BlockStop(self._index))

    def _end(self, reason: FinishWord, stop: str | None) -> Ending:
        if reason == "tool_calls":
            return Ending("tool_use", None)
        if reason == "length":
            return Ending("model_context_window_exceeded" if self._is_cut else "max_tokens", None)
        return Ending("end_turn" if stop is None else "stop_sequence", stop)

    def _message(
        self, blocks: list[ContentBlock], ending: Ending | None, usage: UsageBody
    ) -> Message:
        answer = self._answer
        reason, stop = (
            (None, None) if ending is None else (ending.stop_reason, ending.stop_sequence)
        )
        return Message(answer.id, "assistant", answer.model, blocks, reason, stop, usage)


def _blocks(choice: Choice) -> list[ContentBlock]:
    blocks: list[ContentBlock] = []
    if choice.reasoning:
        blocks.append(ThinkingBlock(choice.reasoning))
    if choice.text:
        blocks.append(TextBlock(choice.text))
    return blocks + [ToolUseBlock(call.id, call.name, _input(call)) for call in choice.tool_calls]


def _input(call: ToolCall) -> object:
    """The call's arguments as an object; an empty one for arguments that were cut off."""
    try:
        return msgspec.json.decode(call.arguments, type=dict[str, object])
    except msgspec.MsgspecError:
        return {}


def _usage(usage: Usage) -> UsageBody:
    return UsageBody(
        input_tokens=usage.prompt_tokens - usage.cached_tokens - usage.kept_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        cache_creation_input_tokens=usage.kept_tokens,
    )


def _frame(event: Event) -> bytes:
    return event_frame(str(event.__struct_config__.tag), msgspec.json.encode(event))
