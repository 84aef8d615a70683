"""Reads one tool call out of the text between its tags, as it comes.

Where a call is JSON, `{"name": ..., "arguments": {...}}`, its name and the pieces of its arguments
are told while they come. What one of mlx-lm's parsers has to read is told when it is complete, and
so is JSON in any other order.

Does not know tokens, tags' places in an answer, or whether a tool of that name exists.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.request import ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Parse = Callable[[str, Sequence[Mapping[str, object]]], object]

__all__ = ["JSON_CALLS", "CallFormat", "CallReader", "call_text"]

_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)',
    re.DOTALL,
)
"""Up to arguments that are an object. Others (a string of JSON, say) wait for the call's end."""

_MOST_HEAD = 512
"""Characters within which a call's head must have come, if its arguments are to be streamed."""

_MOST_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How a model writes a call: `start`, what `parse` reads, `end` (empty: the answer's end).

    `parse` takes the body and the tools in OpenAI's shape, and gives a call or a list of calls,
    each with `name` and `arguments`; it raises what it likes. `is_json`: a body is one JSON object.
    """

    start: str
    end: str
    parse: Parse
    is_json: bool


def _parse_json(body: str, _: Sequence[Mapping[str, object]]) -> object:
    return json.loads(body)


JSON_CALLS = CallFormat("<tool_call>", "</tool_call>", _parse_json, is_json=True)
"""What models without a format of their own are asked for; Hermes and Qwen were trained on it."""


def call_text(name: object, arguments: object) -> str:
    """A call as a model that uses `JSON_CALLS` would have written it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{JSON_CALLS.start}\n{body}\n{JSON_CALLS.end}"


class CallReader:
    """Reads the body of what may be a call, or several. `first_index` is that of the first one."""

    def __init__(
        self, form: CallFormat, tools: Sequence[Mapping[str, object]], first_index: int
    ) -> None:
        self._form = form
        self._tools = tools
        self._index = first_index
        self.body = ""
        self._arguments: _ObjectScanner | None = None

    def push(self, text: str) -> tuple[ToolCallDelta, ...]:
        """What can be told now."""
        self.body += text
        if self._arguments is not None:
            return self._more(text)
        if not self._form.is_json or len(self.body) - len(text) > _MOST_HEAD:
            return ()
        head = _HEAD.match(self.body)
        if head is None:
            return ()
        self._arguments = _ObjectScanner()
        begun = self._arguments.push(self.body[head.end() :])
        return (ToolCallDelta(self._index, _new_id(), json.loads(head["name"]), begun),)

    def finish(self) -> tuple[ToolCallDelta, ...] | None:
        """The rest at the end tag or the answer's end; None if the body is no call at all."""
        if self._arguments is not None:
            return ()
        try:
            parsed = self._form.parse(self.body[:_MOST_BODY], self._tools)
            calls = parsed if isinstance(parsed, list) else [parsed]
            return tuple(self._whole(place, call) for place, call in enumerate(calls)) or None
        except (ValueError, TypeError, LookupError, AttributeError, SyntaxError, RecursionError):
            # What a model wrote; mlx-lm's parsers raise whatever they stumble over.
            return None

    def _more(self, text: str) -> tuple[ToolCallDelta, ...]:
        assert self._arguments is not None  # noqa: S101 - the caller has looked
        piece = self._arguments.push(text)
        return (ToolCallDelta(self._index, None, None, piece),) if piece else ()

    def _whole(self, place: int, call: object) -> ToolCallDelta:
        if not isinstance(call, Mapping) or not isinstance(name := call["name"], str):
            raise TypeError
        arguments = call.get("arguments", call.get("parameters"))
        if not isinstance(arguments, str):
            arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
        return ToolCallDelta(self._index + place, _new_id(), name, arguments)


class _ObjectScanner:
    """Passes one JSON object through, character by character, and nothing after it."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._is_over = False

    def push(self, text: str) -> str:
        """As much of `text` as belongs to the object."""
        if self._is_over:
            return ""
        for place, character in enumerate(text):
            if self._ends_with(character):
                self._is_over = True
                return text[: place + 1]
        return text

    def _ends_with(self, character: str) -> bool:
        """Takes the next character; whether it closes the object."""
        if self._in_string:
            self._in_string = self._is_escaped or character != '"'
            self._is_escaped = character == "\\" and not self._is_escaped
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            return self._depth == 0
        return False


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"
