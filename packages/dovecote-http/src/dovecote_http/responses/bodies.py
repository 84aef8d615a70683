"""What OpenAI's Responses API answers: the response, its items and its events.

Does not know HTTP or the engine's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from dovecote_http.responses.body import (  # noqa: TC001 - msgspec reads the annotations
    FunctionTool,
    NamedTool,
    TextFormat,
)

if TYPE_CHECKING:
    from dovecote_engine.request import Usage

__all__ = [
    "CallItem",
    "ErrorEvent",
    "Incomplete",
    "ItemEvent",
    "MessageItem",
    "OutputItem",
    "OutputText",
    "PartEvent",
    "ReasoningItem",
    "ReasoningText",
    "Response",
    "ResponseEvent",
    "TextEvent",
    "TextShape",
    "UsageBody",
    "usage_body",
]

Status = Literal["in_progress", "completed", "incomplete"]


class InputDetails(Struct, frozen=True):
    """`cached_tokens` of the input came from the pool, `cache_write_tokens` were put there."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Struct, frozen=True):
    """`reasoning_tokens` of the output came before the answer proper."""

    reasoning_tokens: int


class UsageBody(Struct, frozen=True):
    """Token counts. The input includes the cached ones."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class OutputText(Struct, frozen=True, tag_field="type", tag="output_text"):
    """A text of the answer."""

    text: str
    annotations: list[object] = field(default_factory=list)
    logprobs: list[object] = field(default_factory=list)


class ReasoningText(Struct, frozen=True, tag_field="type", tag="reasoning_text"):
    """What was thought."""

    text: str


class MessageItem(Struct, frozen=True, tag_field="type", tag="message"):
    """A message of the answer."""

    id: str
    status: Status
    content: list[OutputText]
    role: str = "assistant"


class ReasoningItem(Struct, frozen=True, tag_field="type", tag="reasoning"):
    """A thought of the answer."""

    id: str
    status: Status
    content: list[ReasoningText]
    summary: list[object] = field(default_factory=list)


class CallItem(Struct, frozen=True, tag_field="type", tag="function_call"):
    """A call of a function. `arguments` is JSON text."""

    id: str
    status: Status
    call_id: str
    name: str
    arguments: str


OutputItem = MessageItem | ReasoningItem | CallItem


class Incomplete(Struct, frozen=True):
    """Why an answer is not complete."""

    reason: str


class TextShape(Struct, frozen=True):
    """What the text was to be."""

    format: TextFormat


class Response(Struct, frozen=True, kw_only=True):
    """A response, as far as it has come, with what was asked for."""

    id: str
    object: str = "response"
    created_at: int
    status: Status
    error: None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    store: bool
    temperature: float
    text: TextShape
    tool_choice: str | NamedTool
    tools: list[FunctionTool]
    top_p: float
    truncation: str = "disabled"
    usage: UsageBody | None = None
    user: str | None


class ResponseEvent(Struct, frozen=True):
    """The response as it stands."""

    type: str
    sequence_number: int
    response: Response


class ItemEvent(Struct, frozen=True):
    """An item begins, or is complete."""

    type: str
    sequence_number: int
    output_index: int
    item: OutputItem


class PartEvent(Struct, frozen=True):
    """An item's only part begins, or is complete."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: OutputText | ReasoningText


class TextEvent(Struct, frozen=True, omit_defaults=True):
    """An item gains something (`delta`), or has all of it (`text`, `arguments`)."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int | None = None
    delta: str | None = None
    text: str | None = None
    name: str | None = None
    arguments: str | None = None
    logprobs: list[object] | None = None


class ErrorEvent(Struct, frozen=True):
    """An error. `error` is what makes OpenAI's client raise it."""

    type: str
    sequence_number: int
    code: str | None
    message: str
    param: str | None
    error: object


def usage_body(usage: Usage) -> UsageBody:
    """Token counts in the words of this API."""
    return UsageBody(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(usage.cached_tokens, usage.kept_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(usage.reasoning_tokens),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
