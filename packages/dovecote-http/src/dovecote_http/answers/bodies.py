"""Request bodies: what is read of them, and what is refused since it would change the answer.

Unknown fields are ignored: clients send many. Does not know headers, the engine or the tokenizer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from dovecote_http.answers.forms import convert_at
from dovecote_http.errors import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ChatBody",
    "GenerationBody",
    "Message",
    "StreamOptions",
    "TextPart",
    "chat_body",
    "decode_body",
    "decode_chat",
    "template_messages",
    "unsupported",
]

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Count = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = Annotated[str, Meta(min_length=1)]
S = TypeVar("S", bound=Struct)


class TextPart(Struct, frozen=True):
    """One part of a content list. Only parts of the type "text" are understood."""

    type: str
    text: str | None = None


class CalledFunction(Struct, frozen=True):
    """A function with its arguments: JSON text, or, against the rules, the object itself."""

    name: str
    arguments: str | dict[str, object] | None = None


class ToolCallSpec(Struct, frozen=True):
    """A tool call that an assistant's turn made."""

    function: CalledFunction
    id: str | None = None


class Message(Struct, frozen=True):
    """One message of the conversation."""

    role: Role
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[object] | None = None
    function_call: object = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class StreamOptions(Struct, frozen=True):
    """How the stream ends."""

    include_usage: bool | None = None


class GenerationBody(Struct, frozen=True, kw_only=True):
    """What chat and text completions have in common."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=4)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.1, le=10)] | None = None
    logit_bias: dict[int, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    session_id: str | None = None
    prompt_cache_key: str | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    priority: object = None

    @property
    def wants_usage(self) -> bool:
        """The stream is to end with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def salt(self) -> bytes:
        """What separates this tenant's cached prefixes from those of others."""
        return (self.cache_salt or "").encode()

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, however they were written."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatBody(GenerationBody, frozen=True, kw_only=True):
    """The body of a chat completion."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None

    # Whether the last message is the beginning of the answer: see _check_begun.
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    # What they hold is checked in forms.py.
    tools: list[object] | None = None
    tool_choice: object = None
    parallel_tool_calls: bool | None = None
    response_format: object = None

    # Understood only where they ask for nothing: see _NEUTRAL.
    functions: object = None
    function_call: object = None
    modalities: object = None
    audio: object = None
    web_search_options: object = None

    @property
    def token_limit(self) -> int | None:
        """How many tokens the answer may have; the newer field wins."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def begun(self) -> str:
        """The beginning of the answer, which goes on from there; empty if it has none."""
        last = len(self.messages) - 1
        return _text(last, self.messages[last]) if self.continue_final_message else ""

    @property
    def ranked_tokens(self) -> int | None:
        """How many of the likeliest tokens to tell with each; None for no log probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


_NEUTRAL: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": ([], ["text"]),
    "audio": (),
    "web_search_options": (),
}
"""Values, beside null, with which a field that is not supported yet leaves the answer as it is."""


def decode_chat(raw: bytes) -> ChatBody:
    """The validated body. Raises: ApiError (400) that names the field at fault."""
    return _checked(decode_body(raw, ChatBody))


def chat_body(fields: Mapping[str, object]) -> ChatBody:
    """The validated body that another protocol's was translated to. Raises: as `decode_chat`."""
    try:
        return _checked(msgspec.convert(fields, ChatBody))
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error


def _checked(body: ChatBody) -> ChatBody:
    for name, neutral in _NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise unsupported(name)
    if body.top_logprobs and not body.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    _check_begun(body)
    return body


def _check_begun(body: ChatBody) -> None:
    """The two fields are vLLM's, and so is what they may be; white space at the end is refused as
    Anthropic does: the model would have begun its next token with it.
    """
    opens, continues = body.add_generation_prompt is not False, bool(body.continue_final_message)
    if opens == continues:
        message = "'continue_final_message' goes together with 'add_generation_prompt' false."
        raise invalid(message, "continue_final_message" if continues else "add_generation_prompt")
    if not continues:
        return
    last = body.messages[-1]
    if last.role != "assistant" or last.tool_calls or last.function_call is not None:
        raise invalid("Only an assistant's message without calls can be continued.", "messages")
    if not body.begun:
        raise invalid("The final assistant content is empty: it cannot be continued.", "messages")
    if body.begun != body.begun.rstrip():
        message = "The final assistant content cannot end with trailing whitespace."
        raise invalid(message, "messages")


def template_messages(body: ChatBody) -> list[dict[str, object]]:
    """The messages as a chat template takes them: content is always a string, and the older words
    for calls and their results are the newer ones.

    Raises: ApiError (400) for content that is not text and for calls that are none.
    """
    return [_template_message(at, message) for at, message in enumerate(body.messages)]


def _template_message(at: int, message: Message) -> dict[str, object]:
    role = "tool" if message.role == "function" else message.role
    shown: dict[str, object] = {"role": role, "content": _text(at, message)}
    if calls := _calls(at, message):
        shown["tool_calls"] = calls
    reasoning = message.reasoning_content or message.reasoning
    if reasoning is not None and message.role == "assistant":
        shown["reasoning_content"] = reasoning
    if message.name is not None:
        shown["name"] = message.name
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _calls(at: int, message: Message) -> list[dict[str, object]]:
    place = f"messages[{at}].tool_calls"
    made = [
        convert_at(each, ToolCallSpec, f"{place}[{number}]")
        for number, each in enumerate(message.tool_calls or ())
    ]
    if message.function_call is not None:
        function = convert_at(
            message.function_call, CalledFunction, f"messages[{at}].function_call"
        )
        made.append(ToolCallSpec(function, f"call_{at}"))
    return [
        {
            "id": call.id or f"call_{at}_{number}",
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments or "{}"},
        }
        for number, call in enumerate(made)
    ]


def _text(at: int, message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = []
    for index, part in enumerate(message.content):
        place = f"messages[{at}].content[{index}]"
        if part.type != "text":
            raise invalid(
                f"'{place}.type' must be 'text'; other parts are not supported yet.",
                f"{place}.type",
                "unsupported_value",
            )
        if part.text is None:
            raise invalid(f"'{place}.text' is missing.", f"{place}.text")
        texts.append(part.text)
    return "".join(texts)


def unsupported(param: str) -> ApiError:
    """A 400 for a wish that would change the answer and cannot be met."""
    message = f"'{param}' is not supported yet: leave it out."
    return invalid(message, param, "unsupported_parameter")


def decode_body(raw: bytes, kind: type[S]) -> S:
    """The body as that struct. Raises: ApiError (400) that names the place at fault."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error
    except UnicodeDecodeError as error:
        raise _unreadable(f"it is not valid UTF-8 (byte {error.start} of a string)") from error
    except RecursionError as error:
        raise _unreadable("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        reason = str(error)
        where = "" if "(byte" in reason else f" (byte {len(raw)})"
        raise _unreadable(f"{reason}{where}") from error


def _unreadable(reason: str) -> ApiError:
    return invalid(f"The body of the request could not be read as JSON: {reason}.", None)


_PLACE = re.compile(r"^(?P<reason>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>\w+)`$")


def _misfit(text: str) -> ApiError:
    """Turns msgspec's "Expected `int`, got `str` - at `$.messages[0].name`" into a 400."""
    place = _PLACE.match(text)
    reason, path = (place["reason"], place["path"] or "") if place else (text, "")
    missing = _MISSING.match(reason)
    param = path + (f".{missing['name']}" if missing else "")
    param = param.removeprefix(".")
    if missing:
        return invalid(f"'{param}' is missing.", param)
    return invalid(f"'{param}': {reason}." if param else f"{reason}.", param or None)
