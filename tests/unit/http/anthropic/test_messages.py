"""Anthropic's Messages API, driven by Anthropic's own client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)

from dovecote_engine.errors import ContextExceeded, Draining, Overloaded
from dovecote_http import Access, HttpSettings, KeyRing, parse_keys
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from anthropic.types import Message, MessageParam

    from tests.unit.http.conftest import Service, Start

MODEL = "scripted/parrot"
HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
BODY = {"max_tokens": 9, "messages": HI}


def client_of(service: Service) -> AsyncAnthropic:
    """Anthropic's client; it sends its key as `x-api-key`."""
    url = f"http://127.0.0.1:{service.port}"
    return AsyncAnthropic(base_url=url, api_key="any", max_retries=0, timeout=20)


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncAnthropic]:
    """A client of a service that says "Hello world"."""
    async with client_of(service) as made:
        yield made


def events(raw: bytes) -> list[dict[str, Any]]:
    """The data of all events, once each has proved to be named as its data are."""
    *frames, end = raw.decode().split("\n\n")
    assert end == ""
    found = []
    for frame in frames:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


async def test_an_answer_has_anthropics_shape(start: Start) -> None:
    """Input tokens exclude those that came from the pool."""
    service = await start(Script(cached_tokens=1))
    async with service.session.post("/v1/messages", json=BODY) as response:
        body = await response.json()
        assert response.headers["X-Dovecote-Cache"] == "hit; tokens=1; source=shared"
    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "Hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_read_input_tokens": 1,
            "cache_creation_input_tokens": 0,
        },
    }


async def test_anthropics_client_reads_an_answer(client: AsyncAnthropic) -> None:
    message = await client.messages.create(model=MODEL, max_tokens=9, messages=HI)
    (block,) = message.content
    assert block.type == "text"
    assert block.text == "Hello world"
    assert message.stop_reason == "end_turn"


async def test_anthropics_stream_helper_assembles_the_answer(start: Start) -> None:
    """The client's own accumulator accepts the events' order, indices and counts."""
    service = await start(Script(cached_tokens=1, tail="!"))
    async with (
        client_of(service) as client,
        client.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert texts == ["Hello", " world", "!"]
    assert message.stop_reason == "end_turn"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (1, 1, 2)


async def test_a_stream_has_these_events_in_this_order(start: Start) -> None:
    """Thought, text and end, each block with an index of its own."""
    service = await start(Script(reasoning=("Hm",), texts=("Hel", "lo")))
    async with service.session.post("/messages", json={**BODY, "stream": True}) as response:
        assert response.content_type == "text/event-stream"
        found = events(await response.read())
    start_of_message = found.pop(0)
    assert start_of_message["message"]["content"] == []
    assert start_of_message["message"]["stop_reason"] is None
    usage = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    assert found == [
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "Hm"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "text", "text": ""},
        },
        *(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in ("Hel", "lo")
        ),
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"input_tokens": 2, "output_tokens": 3, **usage},
        },
        {"type": "message_stop"},
    ]


async def test_a_silent_stream_gets_real_pings(start: Start) -> None:
    """Pings are events, come after the message has begun, and only while nothing else does."""
    service = await start(Script(holds_before_start=True), HttpSettings(keepalive_s=0.02))
    async with service.session.post("/v1/messages", json={**BODY, "stream": True}) as response:
        head = await response.content.readuntil(b'event: ping\ndata: {"type":"ping"}\n\n')
        assert head.startswith(b"event: message_start\n")
        service.engine.release()
        found = events(head + await response.read())
    kinds = [event["type"] for event in found if event["type"] != "ping"]
    assert kinds.count("message_start") == 1
    assert kinds[-1] == "message_stop"


@pytest.mark.parametrize("streams", (False, True))
@pytest.mark.parametrize(
    ("script", "max_tokens", "reason", "stop"),
    (
        (Script(), 9, "end_turn", None),
        (Script(), 1, "max_tokens", None),
        (Script(stop="###"), 9, "stop_sequence", "###"),
        (Script(), 9000, "end_turn", None),
        (Script(reason="length"), 9000, "model_context_window_exceeded", None),
    ),
)
async def test_why_an_answer_ended_is_told(
    start: Start, script: Script, max_tokens: int, reason: str, stop: str | None, *, streams: bool
) -> None:
    """Its own end, the limit, which stop sequence, or the end of the context."""
    service = await start(script)
    message: Message
    async with client_of(service) as client:
        if streams:
            async with client.messages.stream(
                model=MODEL, max_tokens=max_tokens, messages=HI
            ) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(model=MODEL, max_tokens=max_tokens, messages=HI)
    assert (message.stop_reason, message.stop_sequence) == (reason, stop)


async def test_more_tokens_than_there_is_room_for_become_the_rest(service: Service) -> None:
    """What clients always ask for does not keep them from short contexts."""
    async with service.session.post("/v1/messages", json={**BODY, "max_tokens": 64000}) as response:
        assert response.status == 200
    assert service.engine.requests[0].max_tokens == service.engine.model.context_tokens - 2


async def test_tokens_are_counted_as_they_would_be_computed(
    service: Service, client: AsyncAnthropic
) -> None:
    """A count is the length of the prompt of the message with the same beginning."""
    counted = await client.messages.count_tokens(model=MODEL, system="Be brief.", messages=HI)
    await client.messages.create(model=MODEL, max_tokens=1, system="Be brief.", messages=HI)
    (request,) = service.engine.requests
    assert counted.input_tokens == len(request.prompt) == len("Be brief.Hi")


async def test_what_shapes_the_answer_reaches_the_engine(
    service: Service, client: AsyncAnthropic
) -> None:
    await client.messages.create(
        model=MODEL,
        max_tokens=5,
        messages=HI,
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 7},
        stop_sequences=["END"],
        metadata={"user_id": "mallory"},
    )
    (request,) = service.engine.requests
    sampling = request.sampling
    assert (request.max_tokens, request.stop, request.agent) == (5, ("END",), "mallory")
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)


async def test_an_assistants_last_message_is_the_answers_beginning(
    service: Service, client: AsyncAnthropic
) -> None:
    """The prompt is left open there, for a count too, and the answer holds what follows alone."""
    begun: list[MessageParam] = [*HI, {"role": "assistant", "content": "Oh,"}]
    counted = await client.messages.count_tokens(model=MODEL, messages=begun)
    message = await client.messages.create(model=MODEL, max_tokens=9, messages=begun)
    (request,) = service.engine.requests
    assert service.engine.model.tokenizer.continued == [True, True]
    assert counted.input_tokens == len(request.prompt) == len("HiOh,")
    assert request.form.begun == "Oh,"
    (block,) = message.content
    assert block.type == "text"
    assert block.text == "Hello world"


@pytest.mark.parametrize(
    ("refusal", "status", "kind", "words"),
    (
        (
            ContextExceeded(2048, 9000),
            400,
            "invalid_request_error",
            "prompt is too long: 9000 tokens > 2048 maximum",
        ),
        (Overloaded("Full.", 3), 429, "rate_limit_error", "Full."),
        (Draining("Bye.", 3), 503, "overloaded_error", "Bye."),
    ),
)
async def test_a_refusal_has_anthropics_shape(
    start: Start, refusal: Exception, status: int, kind: str, words: str
) -> None:
    """Type and message are where these clients look for them; the rest is in the headers."""
    service = await start(Script(refusal=refusal))
    async with service.session.post("/v1/messages", json=BODY) as response:
        assert (response.status, response.content_type) == (status, "application/json")
        assert ("Retry-After" in response.headers) is (status != 400)
        assert await response.json() == {"type": "error", "error": {"type": kind, "message": words}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    (
        ("POST", "/v1/messages", {}, 400, "invalid_request_error"),
        ("POST", "/messages/count_tokens", {"messages": []}, 400, "invalid_request_error"),
        ("POST", "/v1/messages", {**BODY, "model": "claude-9"}, 404, "not_found_error"),
        ("GET", "/v1/messages", None, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error"),
    ),
)
async def test_every_error_under_messages_has_the_shape(
    service: Service, method: str, path: str, body: object, status: int, kind: str
) -> None:
    """The router's and the validator's too."""
    async with service.session.request(method, path, json=body) as response:
        error = await response.json()
        assert response.status == status
    assert set(error) == {"type", "error"}
    assert error["error"]["type"] == kind


async def test_a_key_is_asked_for_in_anthropics_shape(start: Start) -> None:
    """`x-api-key` opens the door, and a wrong one is an error that the client knows."""
    ring = KeyRing(lambda: parse_keys(f"acme:{'a' * 16}"))
    service = await start(access=Access(keys=ring))
    url = f"http://127.0.0.1:{service.port}"
    async with AsyncAnthropic(base_url=url, api_key="a" * 16, max_retries=0) as client:
        await client.messages.create(model=MODEL, max_tokens=9, messages=HI)
    async with AsyncAnthropic(base_url=url, api_key="b" * 16, max_retries=0) as client:
        with pytest.raises(AuthenticationError, match="authentication_error"):
            await client.messages.create(model=MODEL, max_tokens=9, messages=HI)


async def test_anthropics_client_raises_its_own_errors(start: Start) -> None:
    service = await start(Script(refusal=Overloaded("The queue is full.", 3)))
    async with client_of(service) as client:
        with pytest.raises(RateLimitError, match="The queue is full"):
            await client.messages.create(model=MODEL, max_tokens=9, messages=HI)
        with pytest.raises(NotFoundError, match="claude-9"):
            await client.messages.create(model="claude-9", max_tokens=9, messages=HI)
        with pytest.raises(BadRequestError, match="max_tokens"):
            await client.messages.create(model=MODEL, max_tokens=0, messages=HI)


async def test_an_error_in_a_stream_is_an_event_and_its_end(start: Start) -> None:
    service = await start(Script(fails_after=1))
    async with client_of(service) as client:
        async with service.session.post("/v1/messages", json={**BODY, "stream": True}) as response:
            *_, last = events(await response.read())
        stream = await client.messages.create(model=MODEL, max_tokens=9, messages=HI, stream=True)
        with pytest.raises(APIStatusError, match="The row had to be given up"):
            async for _ in stream:
                pass
    assert last == {
        "type": "error",
        "error": {"type": "api_error", "message": "The row had to be given up."},
    }


@pytest.mark.parametrize(
    ("aliases", "status"),
    ((("claude-opus-4-6",), 200), (("*",), 200), (("claude-haiku-4-5",), 404), ((), 404)),
)
async def test_an_alias_names_the_served_model(
    start: Start, aliases: tuple[str, ...], status: int
) -> None:
    """Clients that send their vendor's names are served where the operator says so."""
    service = await start(settings=HttpSettings(model_aliases=frozenset(aliases)))
    for path in ("/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"):
        body = {**BODY, "model": "claude-opus-4-6"}
        async with service.session.post(path, json=body) as response:
            assert response.status == status
            assert (await response.json()).get("model", MODEL) in (MODEL, None)
