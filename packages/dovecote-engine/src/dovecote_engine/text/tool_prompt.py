r"""Tools for chat templates that know none: described in the system message, called in tags.

The words are those that Hermes and Qwen models were trained with. A call is written as
`<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`, and its result comes back in the
next user message as `<tool_response>\n...\n</tool_response>`; results in a row share a message.

Does not know tokens or templates.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dovecote_engine.text.tool_calls import call_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["describe_tools", "tool_free"]

_BEFORE = (
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
_TOOL_ROLES = ("tool", "function")


def describe_tools(tools: Sequence[Mapping[str, object]]) -> str:
    """What the model is told about the tools, in OpenAI's shape."""
    lines = (json.dumps(tool, ensure_ascii=False) for tool in tools)
    return _BEFORE + "\n".join(lines) + _AFTER


def tool_free(
    chat: Sequence[Mapping[str, object]], tools: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """The messages without tools, calls and results as such: all of them are text.

    `chat` holds plain messages. Does not modify them.
    """
    told: list[dict[str, object]] = []
    for message in chat:
        if message["role"] in _TOOL_ROLES:
            _add_result(told, str(message["content"]))
        else:
            told.append(_with_calls_as_text(message))
    if tools:
        _add_to_system(told, describe_tools(tools))
    return told


def _with_calls_as_text(message: Mapping[str, object]) -> dict[str, object]:
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        functions = [each["function"] for each in calls]
        texts = [call_text(each.get("name"), each.get("arguments")) for each in functions]
        content = [plain["content"]] if plain["content"] else []
        plain["content"] = "\n".join(str(each) for each in [*content, *texts])
    return plain


def _add_result(told: list[dict[str, object]], content: str) -> None:
    result = f"<tool_response>\n{content}\n</tool_response>"
    if told and told[-1].get("role") == "user" and told[-1].get("results"):
        told[-1]["content"] = f"{told[-1]['content']}\n{result}"
    else:
        told.append({"role": "user", "content": result, "results": True})


def _add_to_system(told: list[dict[str, object]], text: str) -> None:
    if told and told[0]["role"] == "system":
        content = str(told[0]["content"])
        told[0] = {**told[0], "content": f"{content}\n\n{text}" if content else text}
    else:
        told.insert(0, {"role": "system", "content": text})
