"""Tool calls and reasoning as clients get them, and conversations that hold them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openai.lib.streaming.chat import ChunkEvent
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionUserMessageParam

from dovecote_engine.errors import BadRequest
from dovecote_engine.request import JsonSchema, ToolCallDelta
from dovecote_http.answers.bodies import decode_chat, template_messages
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

HI = ChatCompletionUserMessageParam(role="user", content="Hi")
ADD: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object"}},
}
CALLS = (
    ToolCallDelta(0, "call_1", "add", '{"a"'),
    ToolCallDelta(0, None, None, ": 1}"),
    ToolCallDelta(1, "call_2", "stop", "{}"),
)
CALLING = Script(texts=(), reasoning=("Well", ", well."), calls=CALLS, reason="tool_calls")


async def test_calls_have_openais_shape(start: Start) -> None:
    """Content is null where there are calls alone; reasoning stands under both its names."""
    service = await start(CALLING)
    async with service.post({"messages": [HI], "tools": [ADD]}) as response:
        body = await response.json()
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "add", "arguments": '{"a": 1}'},
            },
            {"id": "call_2", "type": "function", "function": {"name": "stop", "arguments": "{}"}},
        ],
        "reasoning_content": "Well, well.",
        "reasoning": "Well, well.",
    }
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}


async def test_streamed_calls_come_in_fragments(start: Start) -> None:
    """The first of a call has its id, type and name; later ones arguments alone."""
    service = await start(CALLING)
    body = {"messages": [HI], "tools": [ADD], "stream": True}
    async with service.post(body) as response:
        lines = [line[6:] async for line in response.content if line.startswith(b"data: {")]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Well", "reasoning": "Well"},
        {"reasoning_content": ", well.", "reasoning": ", well."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a"'},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "call_2",
                    "type": "function",
                    "function": {"name": "stop", "arguments": "{}"},
                }
            ]
        },
        {},
    ]
    assert json.loads(lines[-1])["choices"][0]["finish_reason"] == "tool_calls"


async def test_openais_client_gathers_streamed_calls(start: Start) -> None:
    """Its own accumulator comes to the same calls as the answer in one piece."""
    service = await start(CALLING)
    create = service.openai.chat.completions
    whole = await create.create(model="scripted/parrot", messages=[HI], tools=[ADD])
    async with create.stream(model="scripted/parrot", messages=[HI], tools=[ADD]) as stream:
        chunks = [event async for event in stream if isinstance(event, ChunkEvent)]
        gathered = await stream.get_final_completion()
    assert chunks
    for one, other in zip(
        whole.choices[0].message.tool_calls or (),
        gathered.choices[0].message.tool_calls or (),
        strict=True,
    ):
        assert one.type == other.type == "function"
        assert (one.id, one.function.name) == (other.id, other.function.name)
        assert one.function.arguments == other.function.arguments


async def test_every_choice_calls_for_itself(start: Start) -> None:
    service = await start(CALLING)
    async with service.post({"messages": [HI], "tools": [ADD], "n": 2}) as response:
        choices = (await response.json())["choices"]
    assert [len(choice["message"]["tool_calls"]) for choice in choices] == [2, 2]


async def test_wishes_reach_the_engine(service: Service) -> None:
    """The tools as templates want them, and what the answer is held to."""
    body = {
        "messages": [HI],
        "tools": [ADD],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
    }
    async with service.post(body) as response:
        assert response.status == 200
    (request,) = service.engine.requests
    assert (request.form.calls, request.form.parallel) == ("required", False)
    assert request.form.schema == JsonSchema('{"type":"object"}')
    assert service.engine.model.tokenizer.tools == [[ADD]]


async def test_a_schema_that_the_engine_refuses_is_a_400(start: Start) -> None:
    """Before any header of a stream, with the field's name."""
    refusal = BadRequest("response_format cannot be held to: it is empty", "response_format")
    service = await start(Script(refusal=refusal))
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "x"}}}
    body = {"messages": [HI], "response_format": wanted, "stream": True}
    async with service.post(body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "response_format"


def shown(*messages: dict[str, Any]) -> list[dict[str, object]]:
    return template_messages(decode_chat(json.dumps({"messages": messages}).encode()))


def test_calls_and_their_results_reach_the_template() -> None:
    """Arguments stay text, whatever they hold; a call without an id gets one."""
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    bare = {"function": {"name": "add"}}
    assistant, result = shown(
        {"role": "assistant", "content": None, "tool_calls": [call, bare]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "4"}]},
    )
    assert assistant == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            call,
            {
                "id": "call_0_1",
                "type": "function",
                "function": {"name": "add", "arguments": "{}"},
            },
        ],
    }
    assert result == {"role": "tool", "tool_call_id": "c", "content": "4"}


def test_the_older_words_mean_the_same() -> None:
    """`function_call` is a tool call, and the role `function` has its result."""
    assistant, result = shown(
        {"role": "assistant", "function_call": {"name": "add", "arguments": "{}"}},
        {"role": "function", "name": "add", "content": "4"},
    )
    assert assistant["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    ]
    assert result == {"role": "tool", "name": "add", "content": "4"}


@pytest.mark.parametrize("name", ("reasoning", "reasoning_content"))
def test_reasoning_that_comes_back_reaches_the_template(name: str) -> None:
    """Under the name that templates know; that of others than the assistant is dropped."""
    (message,) = shown({"role": "assistant", "content": "x", name: "hm"})
    assert message["reasoning_content"] == "hm"
    (message,) = shown({"role": "user", "content": "x", name: "hm"})
    assert "reasoning_content" not in message
