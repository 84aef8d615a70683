"""OpenAI's Responses API, driven by OpenAI's own client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openai import APIError, BadRequestError, NotFoundError

from dovecote_engine.request import ToolCallDelta
from dovecote_http import Access, HttpSettings, KeyRing, parse_keys
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from openai.types.responses import FunctionToolParam

    from tests.unit.http.conftest import Service, Start

MODEL = "scripted/parrot"
CALLS = (
    ToolCallDelta(0, "call_a", "look", ""),
    ToolCallDelta(0, None, None, '{"at":'),
    ToolCallDelta(0, None, None, '"sea"}'),
    ToolCallDelta(1, "call_b", "look", '{"at":"sky"}'),
)
LOOK: FunctionToolParam = {
    "type": "function",
    "name": "look",
    "description": "Looks at something.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": False,
}


def events(raw: bytes) -> list[dict[str, Any]]:
    """The data of all events, once each has proved to be named and numbered."""
    *frames, end = raw.decode().split("\n\n")
    assert end == ""
    found = []
    for number, frame in enumerate(frames):
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        assert found[-1]["sequence_number"] == number
    return found


def shown(service: Service) -> list[dict[str, Any]]:
    """The messages of the last prompt."""
    return service.engine.model.tokenizer.rendered[-1]


async def test_openais_client_reads_a_response(start: Start) -> None:
    """Text, counts and what was asked for are where the typed client looks for them."""
    service = await start(Script(cached_tokens=1))
    response = await service.openai.responses.create(
        model=MODEL, input="Hi", metadata={"run": "7"}, temperature=0.5
    )
    assert response.id.startswith("resp_")
    assert (response.status, response.output_text) == ("completed", "Hello world")
    assert (response.metadata, response.temperature, response.top_p) == ({"run": "7"}, 0.5, 1.0)
    usage = response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (2, 2, 4)
    assert usage.input_tokens_details.cached_tokens == 1


async def test_openais_stream_helper_assembles_the_response(start: Start) -> None:
    """Thought, text and calls come as items; what was streamed is what the end says."""
    service = await start(
        Script(reasoning=("Hm",), texts=("Hel", "lo"), calls=CALLS, reason="tool_calls")
    )
    async with service.openai.responses.stream(model=MODEL, input="Hi", tools=[LOOK]) as stream:
        told = [event async for event in stream]
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert final.output_text == "Hello"
    calls = [item for item in final.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [
        ("call_a", "look", '{"at":"sea"}'),
        ("call_b", "look", '{"at":"sky"}'),
    ]
    deltas = [e.delta for e in told if e.type == "response.output_text.delta"]
    assert deltas == ["Hel", "lo"]


async def test_a_stream_has_these_events_in_this_order(service: Service) -> None:
    """As OpenAI's own streams have them, and without [DONE]."""
    body = {"input": "Hi", "stream": True}
    async with service.session.post("/responses", json=body) as response:
        assert response.content_type == "text/event-stream"
        found = events(await response.read())
    assert [event["type"] for event in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert found[0]["response"]["status"] == "in_progress"
    assert found[-1]["response"]["output"] == [found[-2]["item"]]


async def test_one_piece_says_what_a_stream_ends_with(start: Start) -> None:
    script = Script(reasoning=("Hm",), texts=("Hello",), calls=CALLS, reason="tool_calls")
    service = await start(script)
    body = {"input": "Hi", "tools": [LOOK]}
    async with service.session.post("/v1/responses", json=body) as response:
        whole = await response.json()
    async with service.session.post("/v1/responses", json={**body, "stream": True}) as response:
        streamed = events(await response.read())[-1]["response"]
    for one in (whole, streamed):
        name = one.pop("id").removeprefix("resp_")
        one.pop("created_at")
        for item in one["output"]:
            assert name in item.pop("id")
    assert whole == streamed


async def test_a_response_that_is_cut_off_is_incomplete(service: Service) -> None:
    response = await service.openai.responses.create(model=MODEL, input="Hi", max_output_tokens=1)
    assert (response.status, response.output_text) == ("incomplete", "Hello")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    stream = await service.openai.responses.create(
        model=MODEL, input="Hi", max_output_tokens=1, stream=True
    )
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_a_response_goes_on_from_the_one_before(service: Service) -> None:
    """The prompt is the whole conversation; the earlier instructions are not part of it."""
    first = await service.openai.responses.create(model=MODEL, instructions="Be brief.", input="Hi")
    second = await service.openai.responses.create(
        model=MODEL, previous_response_id=first.id, input="And?"
    )
    assert shown(service) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello world"},
        {"role": "user", "content": "And?"},
    ]
    await service.openai.responses.create(
        model=MODEL, previous_response_id=second.id, input="So?", instructions="Rhyme."
    )
    assert [turn["content"] for turn in shown(service)] == [
        "Rhyme.",
        "Hi",
        "Hello world",
        "And?",
        "Hello world",
        "So?",
    ]
    assert second.previous_response_id == first.id


async def test_a_tool_s_result_goes_on_from_its_call(start: Start) -> None:
    """Text, calls and results become the messages that the chat template knows."""
    service = await start(Script(texts=("Looking.",), calls=CALLS, reason="tool_calls"))
    first = await service.openai.responses.create(model=MODEL, input="Hi", tools=[LOOK])
    await service.openai.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        tools=[LOOK],
        input=[
            {"type": "function_call_output", "call_id": "call_a", "output": "Waves."},
            {"type": "function_call_output", "call_id": "call_b", "output": "Clouds."},
        ],
    )
    calls = [
        {"id": name, "type": "function", "function": {"name": "look", "arguments": arguments}}
        for name, arguments in (("call_a", '{"at":"sea"}'), ("call_b", '{"at":"sky"}'))
    ]
    assert shown(service) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Looking.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_a", "content": "Waves."},
        {"role": "tool", "tool_call_id": "call_b", "content": "Clouds."},
    ]
    (tool,) = service.engine.model.tokenizer.tools[-1] or ()
    assert tool["function"]["name"] == "look"  # type: ignore[index]


async def test_the_whole_conversation_may_be_sent_instead(service: Service) -> None:
    """Stateless clients send back the items that they got."""
    first = await service.openai.responses.create(model=MODEL, input="Hi", store=False)
    items = [item.to_dict() for item in first.output]
    await service.openai.responses.create(
        model=MODEL,
        store=False,
        input=[{"role": "user", "content": "Hi"}, *items, {"role": "user", "content": "And?"}],  # type: ignore[list-item]
    )
    assert [turn["content"] for turn in shown(service)] == ["Hi", "Hello world", "And?"]


async def test_a_stored_response_can_be_had_again_and_deleted(service: Service) -> None:
    """With store false it never was there."""
    kept = await service.openai.responses.create(model=MODEL, input="Hi")
    again = await service.openai.responses.retrieve(kept.id)
    assert again.output_text == "Hello world"
    await service.openai.responses.delete(kept.id)
    with pytest.raises(NotFoundError):
        await service.openai.responses.retrieve(kept.id)
    with pytest.raises(NotFoundError):
        await service.openai.responses.delete(kept.id)
    unkept = await service.openai.responses.create(model=MODEL, input="Hi", store=False)
    with pytest.raises(NotFoundError):
        await service.openai.responses.retrieve(unkept.id)


async def test_a_streamed_response_is_kept_before_its_end_is_told(service: Service) -> None:
    """So who sees the end can go on from there."""
    async with service.openai.responses.stream(model=MODEL, input="Hi") as stream:
        final = await stream.get_final_response()
    assert (await service.openai.responses.retrieve(final.id)).output_text == "Hello world"


async def test_a_tenant_s_responses_are_its_own(start: Start) -> None:
    """Another one can neither read them, nor go on from them, nor delete them."""
    ring = KeyRing(lambda: parse_keys(f"acme:{'a' * 16}\nother:{'b' * 16}"))
    service = await start(access=Access(keys=ring))
    acme = service.openai.with_options(api_key="a" * 16).responses
    other = service.openai.with_options(api_key="b" * 16).responses
    kept = await acme.create(model=MODEL, input="Hi")
    with pytest.raises(NotFoundError):
        await other.retrieve(kept.id)
    with pytest.raises(NotFoundError):
        await other.delete(kept.id)
    with pytest.raises(BadRequestError, match="not found"):
        await other.create(model=MODEL, input="And?", previous_response_id=kept.id)
    assert (await acme.retrieve(kept.id)).output_text == "Hello world"


async def test_nothing_goes_on_from_a_response_that_is_not_known(service: Service) -> None:
    with pytest.raises(BadRequestError) as caught:
        await service.openai.responses.create(
            model=MODEL, previous_response_id="resp_gone", input="And?"
        )
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"
    assert not service.engine.requests


@pytest.mark.parametrize(
    ("fields", "param"),
    (
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"content": "Hi"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ),
)
async def test_what_cannot_be_met_is_refused_by_name(
    service: Service, fields: dict[str, object], param: str
) -> None:
    async with service.session.post("/v1/responses", json={"input": "Hi", **fields}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param


async def test_openais_client_raises_an_error_in_a_stream(start: Start) -> None:
    service = await start(Script(fails_after=1))
    stream = await service.openai.responses.create(model=MODEL, input="Hi", stream=True)
    with pytest.raises(APIError, match="The row had to be given up"):
        async for _ in stream:
            pass


async def test_a_silent_stream_tells_that_it_is_in_progress(start: Start) -> None:
    """The sign of life is an event, after the response was created."""
    service = await start(Script(holds_before_start=True), HttpSettings(keepalive_s=0.02))
    body = {"input": "Hi", "stream": True}
    async with service.session.post("/v1/responses", json=body) as response:
        head = b""
        while head.count(b"event: response.in_progress") < 3:
            head += await response.content.readuntil(b"\n\n")
        service.engine.release()
        kinds = [event["type"] for event in events(head + await response.read())]
    assert kinds[0] == "response.created"
    assert kinds.count("response.created") == 1
    assert kinds[-1] == "response.completed"
