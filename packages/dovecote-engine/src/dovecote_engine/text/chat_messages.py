"""OpenAI's chat messages in the form that chat templates expect.

Templates are written for plain strings: they add a content to text, and print tool arguments as
JSON themselves. Does not know tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from dovecote_engine.errors import BadRequest

__all__ = ["plain_message"]


def plain_message(message: Mapping[str, object], template: str) -> dict[str, object]:
    """A copy of `message` with its content as one string and its tool arguments as objects.

    None becomes the empty string. `developer`, OpenAI's newer word, becomes `system` where
    `template` does not mention it.
    Raises: BadRequest(field="messages") if the role is no string or a content part is not text.
    """
    role = message.get("role")
    if not isinstance(role, str):
        raise _bad("every message needs a role")
    if role == "developer" and role not in template:
        role = "system"
    plain = {**message, "role": role, "content": _content_text(message.get("content"))}
    if isinstance(calls := message.get("tool_calls"), Sequence):
        plain["tool_calls"] = [_tool_call(call) for call in calls]
    return plain


def _content_text(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise _bad("content must be a string or a list of parts")
    return "".join(_part_text(part) for part in content)


def _part_text(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        text = part.get("text")
        if isinstance(text, str):
            return text
    raise _bad("this model reads text only: a content part must be {'type': 'text', 'text': ...}")


def _tool_call(call: object) -> object:
    """`call` with its function's arguments, JSON text in OpenAI's API, as the object they are."""
    if not isinstance(call, Mapping) or not isinstance(function := call.get("function"), Mapping):
        raise _bad("a tool call needs a function")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return call  # A model may have written them wrong; the template prints the text as it is.
    return {**call, "function": {**function, "arguments": parsed}}


def _bad(message: str) -> BadRequest:
    return BadRequest(message, field="messages")
