"""A message's body as the body of a chat completion.

    system, messages, tools     ->  messages, tools     roles and blocks: see `_turns`
    an assistant's last message ->  continue_final_message; left out if it is empty
    metadata.user_id            ->  session_id or user
    tool_choice                 ->  tool_choice, parallel_tool_calls

The prompt has to be the same from turn to turn, or nothing of it would be found in the pool. So
what Claude Code puts first in the system prompt for its vendor's billing, another text with each
request, is left out.

Does not know HTTP or the engine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from dovecote_http.answers.bodies import chat_body
from dovecote_http.anthropic.body import (
    CountBody,
    InputMessage,
    MessageBody,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from dovecote_http.errors import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dovecote_http.answers.bodies import ChatBody
    from dovecote_http.anthropic.body import Block

__all__ = ["as_chat", "prompt_as_chat"]

Fields = dict[str, object]

_BILLING = re.compile(r"\Ax-anthropic-billing-header:[^\n]*\n*", re.IGNORECASE)
_OLD_SESSION = re.compile(r"_session_([A-Za-z0-9-]+)\Z")
"""How Claude Code told its session before it sent JSON: user_..._account_..._session_UUID."""

_NOTHING_SAID: Fields = {"role": "assistant", "content": ""}

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class ClientUser(Struct, frozen=True):
    """What Claude Code sends for a user id."""

    session_id: str | None = None


def prompt_as_chat(body: CountBody) -> ChatBody:
    """The chat that has the same prompt. Raises: ApiError (400)."""
    return chat_body(_prompt_fields(body))


def as_chat(body: MessageBody) -> ChatBody:
    """The chat that has the same answer. Raises: ApiError (400)."""
    wishes: Fields = {
        "max_completion_tokens": body.max_tokens,
        "stop": body.stop_sequences,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "stream": body.stream,
        "cache_salt": body.cache_salt,
        "priority": body.priority,
        **_identity(body),
    }
    told = {name: value for name, value in wishes.items() if value is not None}
    return chat_body({**_prompt_fields(body), "model": body.model, **told})


def _prompt_fields(body: CountBody) -> Fields:
    turns = [turn for at, message in enumerate(body.messages) for turn in _turns(at, message)]
    system = _system_text(body.system)
    if turns[-1:] == [_NOTHING_SAID]:
        turns.pop()
    fields: Fields = {
        "messages": [{"role": "system", "content": system}, *turns] if system else turns
    }
    if turns and turns[-1]["role"] == "assistant":
        fields |= {"add_generation_prompt": False, "continue_final_message": True}
    if body.tools:
        fields["tools"] = [_tool(tool) for tool in body.tools]
        fields |= _tool_choice(body.tool_choice)
    if body.output_config is not None and body.output_config.format is not None:
        schema = {"name": "answer", "schema": body.output_config.format.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _system_text(system: str | list[Text] | None) -> str:
    texts = [system] if isinstance(system, str) else [block.text for block in system or ()]
    if texts:
        texts[0] = _BILLING.sub("", texts[0])
    return "\n\n".join(text for text in texts if text)


def _turns(at: int, message: InputMessage) -> Iterator[Fields]:
    """The chat messages of one message: results of tools are messages of their own, in order."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
    elif message.role == "assistant":
        yield _answer(at, message.content)
    else:
        yield from _question(at, message.role, message.content)


def _answer(at: int, blocks: Iterable[Block]) -> Fields:
    text, thought = "", ""
    calls: list[Fields] = []
    for index, block in enumerate(blocks):
        match block:
            case Text():
                text += block.text
            case Thinking():
                thought += block.thinking
            case ToolUse():
                calls.append(_call(block))
            case ToolResult():
                raise _misplaced(at, index)
    turn: Fields = {"role": "assistant", "content": text}
    return (
        turn
        | ({"reasoning_content": thought} if thought else {})
        | ({"tool_calls": calls} if calls else {})
    )


def _question(at: int, role: str, blocks: Iterable[Block]) -> Iterator[Fields]:
    texts: list[str] = []
    for index, block in enumerate(blocks):
        match block:
            case Text():
                texts.append(block.text)
            case ToolResult():
                if texts:
                    yield {"role": role, "content": "\n\n".join(texts)}
                    texts = []
                yield {
                    "role": "tool",
                    "tool_call_id": block.tool_use_id,
                    "content": _result_text(block),
                }
            case _:
                raise _misplaced(at, index)
    if texts:
        yield {"role": role, "content": "\n\n".join(texts)}


def _result_text(result: ToolResult) -> str:
    if isinstance(result.content, str):
        return result.content
    return "\n\n".join(block.text for block in result.content or ())


def _call(block: ToolUse) -> Fields:
    arguments = msgspec.json.encode(block.input).decode()
    function = {"name": block.name, "arguments": arguments}
    return {"id": block.id, "type": "function", "function": function}


def _tool(tool: Tool) -> Fields:
    function: Fields = {
        "name": tool.name,
        "parameters": tool.input_schema or {"type": "object", "properties": {}},
    }
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice | None) -> Fields:
    if choice is None:
        return {}
    fields: Fields = {"tool_choice": _CHOICES.get(choice.type)}
    if choice.type == "tool":
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    if choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    return fields


def _identity(body: MessageBody) -> Fields:
    """The session, or else the user, that the body names."""
    if body.session_id is not None:
        return {"session_id": body.session_id}
    user = body.metadata.user_id if body.metadata is not None else None
    if not user:
        return {}
    session = _session_of(user)
    return {"session_id": session} if session else {"user": user}


def _session_of(user: str) -> str | None:
    try:
        return msgspec.json.decode(user, type=ClientUser).session_id
    except msgspec.MsgspecError:
        found = _OLD_SESSION.search(user)
        return found[1] if found else None


def _misplaced(at: int, index: int) -> ApiError:
    place = f"messages[{at}].content[{index}].type"
    return invalid(f"'{place}': such a block has no place in a message of that role.", place)
