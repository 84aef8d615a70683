"""Tools and thoughts in Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anthropic import AsyncAnthropic

from dovecote_engine.request import ToolCallDelta
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from anthropic.types import Message, MessageParam, ToolChoiceParam, ToolParam

    from tests.unit.http.conftest import Service, Start

MODEL = "scripted/parrot"
HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
LOOK: ToolParam = {
    "name": "look",
    "description": "Looks at something.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
}
CALLS = (
    ToolCallDelta(0, "call_a", "look", ""),
    ToolCallDelta(0, None, None, '{"at":'),
    ToolCallDelta(0, None, None, '"sea"}'),
    ToolCallDelta(1, "call_b", "look", '{"at":"sky"}'),
)
SCRIPT = {"reasoning": ("Hm",), "texts": ("Looking.",), "calls": CALLS, "reason": "tool_calls"}


def client_of(service: Service) -> AsyncAnthropic:
    url = f"http://127.0.0.1:{service.port}"
    return AsyncAnthropic(base_url=url, api_key="any", max_retries=0, timeout=20)


@pytest.mark.parametrize("streams", (False, True))
async def test_thoughts_texts_and_calls_are_blocks(start: Start, *, streams: bool) -> None:
    """Each call has its input as an object, and the answer says that it waits for results."""
    service = await start(Script(**SCRIPT))  # type: ignore[arg-type]
    message: Message
    async with client_of(service) as client:
        if streams:
            async with client.messages.stream(
                model=MODEL, max_tokens=99, messages=HI, tools=[LOOK]
            ) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(
                model=MODEL, max_tokens=99, messages=HI, tools=[LOOK]
            )
    assert message.stop_reason == "tool_use"
    found = [block.to_dict() for block in message.content]
    assert found == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "call_a", "name": "look", "input": {"at": "sea"}},
        {"type": "tool_use", "id": "call_b", "name": "look", "input": {"at": "sky"}},
    ]


async def test_results_of_tools_go_back_to_the_model(start: Start) -> None:
    """Blocks become the messages that chat templates know; what the client cites stays together."""
    service = await start(Script(**SCRIPT))  # type: ignore[arg-type]
    async with client_of(service) as client:
        message = await client.messages.create(
            model=MODEL, max_tokens=99, messages=HI, tools=[LOOK]
        )
        results: MessageParam = {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_a", "content": "Waves."},
                {
                    "type": "tool_result",
                    "tool_use_id": "call_b",
                    "content": [{"type": "text", "text": "Clouds."}],
                },
                {"type": "text", "text": "Well?"},
            ],
        }
        await client.messages.create(
            model=MODEL,
            max_tokens=99,
            messages=[*HI, {"role": "assistant", "content": message.content}, results],
            tools=[LOOK],
        )
    tokenizer = service.engine.model.tokenizer
    calls = [
        {"id": name, "type": "function", "function": {"name": "look", "arguments": arguments}}
        for name, arguments in (("call_a", '{"at":"sea"}'), ("call_b", '{"at":"sky"}'))
    ]
    assert tokenizer.rendered[-1] == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": calls,
            "reasoning_content": "Hm",
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "Waves."},
        {"role": "tool", "tool_call_id": "call_b", "content": "Clouds."},
        {"role": "user", "content": "Well?"},
    ]
    function: Any = (tokenizer.tools[-1] or [{}])[0]["function"]
    assert (function["name"], function["parameters"]) == ("look", LOOK["input_schema"])


@pytest.mark.parametrize(
    ("choice", "calls", "parallel"),
    (
        ({"type": "auto"}, "auto", True),
        ({"type": "any"}, "required", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "look"}, "required", True),
        ({"type": "none"}, "none", True),
        (None, "auto", True),
    ),
)
async def test_a_choice_of_tools_reaches_the_engine(
    start: Start, choice: ToolChoiceParam | None, calls: str, *, parallel: bool
) -> None:
    service = await start(Script())
    async with client_of(service) as client:
        more: dict[str, Any] = {} if choice is None else {"tool_choice": choice}
        await client.messages.create(model=MODEL, max_tokens=9, messages=HI, tools=[LOOK], **more)
    form = service.engine.requests[0].form
    assert form.calls == calls
    if calls == "required":
        assert (form.tools[0].name, form.parallel) == ("look", parallel)


async def test_tools_count_in_the_length_of_a_prompt(start: Start) -> None:
    service = await start(Script())
    async with client_of(service) as client:
        await client.messages.count_tokens(model=MODEL, messages=HI, tools=[LOOK])
    (tools,) = service.engine.model.tokenizer.tools
    assert tools


async def test_an_answer_may_have_to_be_json(start: Start) -> None:
    """Structured outputs by the name that Anthropic's clients know."""
    schema: dict[str, object] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    service = await start(Script(texts=('{"a":1}',)))
    async with client_of(service) as client:
        await client.messages.create(
            model=MODEL,
            max_tokens=9,
            messages=HI,
            output_config={"format": {"type": "json_schema", "schema": schema}},
        )
    wanted = service.engine.requests[0].form.schema
    assert wanted is not None
    assert wanted.is_strict


async def test_arguments_that_were_cut_off_are_an_empty_input(start: Start) -> None:
    """The answer says that it was cut off, so no client runs that call."""
    cut = (ToolCallDelta(0, "call_a", "look", '{"at":'),)
    service = await start(Script(texts=(), calls=cut, reason="length"))
    async with client_of(service) as client:
        message = await client.messages.create(model=MODEL, max_tokens=1, messages=HI, tools=[LOOK])
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.input, message.stop_reason) == ({}, "max_tokens")
