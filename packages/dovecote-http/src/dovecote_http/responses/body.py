"""The body of a response as OpenAI's clients send it: what is read of it.

Unknown fields are ignored. Does not know the chat that a body becomes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dovecote_http.answers.bodies import Count, decode_body, unsupported
from dovecote_http.errors import invalid

__all__ = [
    "FunctionTool",
    "Item",
    "NamedTool",
    "Part",
    "ResponseBody",
    "TextFormat",
    "decode_response",
]

Metadata = Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]


class Part(Struct, frozen=True, omit_defaults=True):
    """A part of a content. Only texts are understood, whatever side they come from."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Item(Struct, frozen=True, omit_defaults=True):
    """One item of a conversation; its type says which of the fields it has."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None


class FunctionTool(Struct, frozen=True):
    """A function that the client runs."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class NamedTool(Struct, frozen=True):
    """The function that has to be called."""

    type: str
    name: str | None = None


class TextFormat(Struct, frozen=True, omit_defaults=True):
    """What the text is to be: `name`, `schema` and `strict` belong to "json_schema"."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, object] | None = None
    strict: bool | None = None


class TextConfig(Struct, frozen=True):
    """How the text is to look."""

    format: TextFormat | None = None


class ResponseBody(Struct, frozen=True, kw_only=True):
    """The body of a response."""

    input: str | Annotated[list[Item], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    user: str | None = None

    # Of this server, by the names that chat completions know.
    session_id: str | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    priority: object = None

    # Understood only where they ask for nothing.
    background: bool | None = None
    conversation: object = None
    prompt: object = None
    top_logprobs: int | None = None

    @property
    def items(self) -> tuple[Item, ...]:
        """The input as items."""
        if isinstance(self.input, str):
            return (Item(role="user", content=self.input),)
        return tuple(self.input)

    @property
    def format(self) -> TextFormat:
        """What the text is to be."""
        chosen = self.text.format if self.text is not None else None
        return TextFormat() if chosen is None else chosen


def decode_response(raw: bytes) -> ResponseBody:
    """The validated body. Raises: ApiError (400) that names the field at fault."""
    body = decode_body(raw, ResponseBody)
    for name in ("background", "conversation", "prompt", "top_logprobs"):
        if getattr(body, name):
            raise unsupported(name)
    for at, tool in enumerate(body.tools or ()):
        if tool.type != "function":
            raise invalid(
                f"'tools[{at}].type' must be 'function': this server runs no tools.",
                f"tools[{at}].type",
                "unsupported_value",
            )
        if not tool.name:
            raise invalid(f"'tools[{at}].name' is missing.", f"tools[{at}].name")
    if isinstance(body.tool_choice, NamedTool) and body.tool_choice.type != "function":
        raise unsupported("tool_choice.type")
    if body.format.type == "json_schema" and body.format.schema is None:
        raise invalid("'text.format.schema' is missing.", "text.format.schema")
    return body
