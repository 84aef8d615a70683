"""A response's body as the body of a chat completion.

    what came before, input        ->  messages: see `_Turns`
    instructions                   ->  the first message; those of earlier responses do not count
    tools, tool_choice, text       ->  tools, tool_choice, response_format

Does not know HTTP or the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dovecote_http.answers.bodies import chat_body
from dovecote_http.errors import ApiError, invalid
from dovecote_http.responses.body import NamedTool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dovecote_http.answers.bodies import ChatBody
    from dovecote_http.responses.body import FunctionTool, Item, Part, ResponseBody, TextFormat

__all__ = ["as_chat"]

Fields = dict[str, object]

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


def as_chat(body: ResponseBody, before: Iterable[Item] = ()) -> ChatBody:
    """The chat that has the same answer; `before` are the items of earlier responses.

    Raises: ApiError (400).
    """
    turns = _Turns()
    if body.instructions:
        turns.add({"role": "system", "content": body.instructions})
    for item in before:
        turns.take(item, "previous_response_id")
    for at, item in enumerate(body.items):
        turns.take(item, f"input[{at}]")
    wishes: Fields = {
        "model": body.model,
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "stream": body.stream,
        "session_id": body.session_id,
        "prompt_cache_key": body.prompt_cache_key,
        "user": body.user,
        "cache_salt": body.cache_salt,
        "priority": body.priority,
    }
    told = {name: value for name, value in wishes.items() if value is not None}
    return chat_body({"messages": turns.done(), **_form(body), **told})


def _form(body: ResponseBody) -> Fields:
    fields: Fields = {}
    if body.tools:
        fields["tools"] = [_tool(tool) for tool in body.tools]
        if isinstance(body.tool_choice, NamedTool):
            named = {"name": body.tool_choice.name}
            fields["tool_choice"] = {"type": "function", "function": named}
        elif body.tool_choice is not None:
            fields["tool_choice"] = body.tool_choice
        if body.parallel_tool_calls is not None:
            fields["parallel_tool_calls"] = body.parallel_tool_calls
    if body.format.type != "text":
        fields["response_format"] = _format(body.format)
    return fields


def _tool(tool: FunctionTool) -> Fields:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
        "strict": tool.strict,
    }
    given = {name: value for name, value in function.items() if value is not None}
    return {"type": "function", "function": given}


def _format(wanted: TextFormat) -> Fields:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    schema = {
        "name": wanted.name or "answer",
        "description": wanted.description,
        "schema": wanted.schema,
        "strict": wanted.strict,
    }
    given = {name: value for name, value in schema.items() if value is not None}
    return {"type": "json_schema", "json_schema": given}


class _Turns:
    """Chat messages out of items: one answer's thought, text and calls are one message."""

    def __init__(self) -> None:
        self._turns: list[Fields] = []
        self._thought = ""

    def add(self, turn: Fields) -> None:
        """Appends a message."""
        if self._thought and turn["role"] == "assistant":
            turn = {**turn, "reasoning_content": self._thought}
        self._thought = ""
        self._turns.append(turn)

    def take(self, item: Item, place: str) -> None:
        """Appends an item. Raises: ApiError (400) that names its place."""
        match item.type:
            case "message":
                if item.role is None:
                    raise invalid(f"'{place}.role' is missing.", f"{place}.role")
                self.add({"role": item.role, "content": _text(item.content, f"{place}.content")})
            case "function_call":
                self._call(item, place)
            case "function_call_output":
                text = _text(item.output, f"{place}.output")
                called = _needed(item.call_id, f"{place}.call_id")
                self.add({"role": "tool", "tool_call_id": called, "content": text})
            case "reasoning":
                self._thought += _text(item.content, f"{place}.content")
            case _:
                raise _unknown(f"{place}.type", item.type)

    def done(self) -> list[Fields]:
        """All messages."""
        return self._turns

    def _call(self, item: Item, place: str) -> None:
        function = {
            "name": _needed(item.name, f"{place}.name"),
            "arguments": item.arguments or "{}",
        }
        called = _needed(item.call_id, f"{place}.call_id")
        call = {"id": called, "type": "function", "function": function}
        last = self._turns[-1] if self._turns else {}
        if last.get("role") != "assistant":
            self.add({"role": "assistant", "content": "", "tool_calls": [call]})
            return
        calls = last.get("tool_calls")
        self._turns[-1] = {
            **last,
            "tool_calls": [*(calls if isinstance(calls, list) else []), call],
        }


def _text(content: str | list[Part] | None, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_part(part, f"{place}[{at}]") for at, part in enumerate(content))


def _part(part: Part, place: str) -> str:
    if part.type == "refusal":
        return part.refusal or ""
    if part.type not in _TEXTS:
        raise _unknown(f"{place}.type", part.type)
    return _needed(part.text, f"{place}.text")


def _needed(value: str | None, place: str) -> str:
    if value is None:
        raise invalid(f"'{place}' is missing.", place)
    return value


def _unknown(place: str, kind: str) -> ApiError:
    return invalid(f"'{place}': '{kind}' is not supported.", place, "unsupported_value")
