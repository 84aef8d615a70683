"""The body of a message as Anthropic's clients send it: what is read of it.

Unknown fields are ignored, `cache_control` among them: what is computed is kept anyway. Does not
know the chat that a body becomes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dovecote_http.answers.bodies import Count, Stop, decode_body, unsupported
from dovecote_http.errors import invalid

__all__ = [
    "Block",
    "CountBody",
    "InputMessage",
    "MessageBody",
    "OutputFormat",
    "Text",
    "Thinking",
    "Tool",
    "ToolChoice",
    "ToolResult",
    "ToolUse",
    "decode_count",
    "decode_message",
]


class Text(Struct, frozen=True, tag_field="type", tag="text"):
    """A piece of text."""

    text: str


class Thinking(Struct, frozen=True, tag_field="type", tag="thinking"):
    """What an earlier answer thought. Its signature is of no use here."""

    thinking: str


class RedactedThinking(Struct, frozen=True, tag_field="type", tag="redacted_thinking"):
    """What another server's answer thought, sealed: it is left out of the prompt."""


class ToolUse(Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A tool call of an earlier answer."""

    id: str
    name: str
    input: dict[str, object]


class ToolResult(Struct, frozen=True, tag_field="type", tag="tool_result"):
    """What a tool gave."""

    tool_use_id: str
    content: str | list[Text] | None = None


Block = Text | Thinking | RedactedThinking | ToolUse | ToolResult


class InputMessage(Struct, frozen=True):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Struct, frozen=True):
    """A tool that the client runs. Tools that Anthropic's servers run have another `type`."""

    name: str
    input_schema: dict[str, object] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None


class ToolChoice(Struct, frozen=True):
    """Whether tools may or must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(Struct, frozen=True):
    """`user_id` is an opaque name, or the JSON with which Claude Code tells its session."""

    user_id: str | None = None


class OutputFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    """The JSON that the answer has to be."""

    schema: dict[str, object]


class OutputConfig(Struct, frozen=True):
    """How the answer is to look."""

    format: OutputFormat | None = None


class CountBody(Struct, frozen=True, kw_only=True):
    """The body of a token count: what makes the prompt."""

    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    model: str | None = None
    system: str | list[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None


class MessageBody(CountBody, frozen=True, kw_only=True):
    """The body of a message."""

    max_tokens: Count
    stop_sequences: Annotated[list[Stop], Meta(max_length=4)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
    mcp_servers: list[object] | None = None

    # Of this server, by the names that chat completions know.
    session_id: str | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    priority: object = None


def decode_message(raw: bytes) -> MessageBody:
    """The validated body. Raises: ApiError (400) that names the field at fault."""
    body = decode_body(raw, MessageBody)
    if body.mcp_servers:
        raise unsupported("mcp_servers")
    _check(body)
    return body


def decode_count(raw: bytes) -> CountBody:
    """The validated body. Raises: ApiError (400) that names the field at fault."""
    body = decode_body(raw, CountBody)
    _check(body)
    return body


def _check(body: CountBody) -> None:
    for at, tool in enumerate(body.tools or ()):
        if tool.type not in (None, "custom"):
            raise invalid(
                f"'tools[{at}].type': this server runs no tools; those that clients run are "
                "'custom'.",
                f"tools[{at}].type",
            )
    if (
        body.tool_choice is not None
        and body.tool_choice.type == "tool"
        and not body.tool_choice.name
    ):
        raise invalid("'tool_choice.name' is missing.", "tool_choice.name")
