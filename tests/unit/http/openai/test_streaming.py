"""Streams: framing to the byte, header truth, keep-alive, errors inside, leaving clients."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from openai import APIError
from openai.types.chat import ChatCompletionUserMessageParam

from dovecote_engine.errors import Overloaded
from dovecote_http import HttpSettings
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    import aiohttp

    from tests.unit.http.conftest import Service, Start

HI = ChatCompletionUserMessageParam(role="user", content="Hi")


def ask(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}


def payloads(raw: bytes) -> list[str]:
    """The data of each event; comments are left out."""
    events = raw.decode().split("\n\n")
    assert events.pop() == ""
    return [event.removeprefix("data: ") for event in events if not event.startswith(":")]


def chunks(raw: bytes) -> list[dict[str, Any]]:
    """The JSON of all events before the [DONE] that must be there."""
    *found, done = payloads(raw)
    assert done == "[DONE]"
    return [json.loads(payload) for payload in found]


async def test_a_stream_is_framed_to_the_byte(start: Start) -> None:
    """Role, texts, finish, usage if asked, [DONE]: these bytes and no others."""
    service = await start(Script(texts=("Hel", "", "lo"), tail="!", cached_tokens=1))
    async with service.post(ask(stream_options={"include_usage": True})) as response:
        raw = await response.read()
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Dovecote-Cache"] == "hit; tokens=1; source=shared"
        assert response.headers["Server-Timing"].startswith("queue;dur=1.5, ")
        assert response.headers["x-request-id"]
    same = re.match(
        rb'data: \{"id":"(chatcmpl-[0-9a-f]{32})","object":"chat.completion.chunk",'
        rb'"created":(\d{10}),',
        raw,
    )
    assert same
    head = (
        f'data: {{"id":"{same[1].decode()}","object":"chat.completion.chunk",'
        f'"created":{same[2].decode()},"model":"scripted/parrot","choices":['
    )
    choice = head + '{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}]}\n\n'
    assert raw.decode() == "".join(
        (
            choice % ('"role":"assistant","content":""', "null"),
            choice % ('"content":"Hel"', "null"),
            choice % ('"content":"lo"', "null"),
            choice % ('"content":"!"', "null"),
            choice % ("", '"stop"'),
            head + '],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,'
            '"prompt_tokens_details":{"cached_tokens":1,"cache_write_tokens":0},'
            '"completion_tokens_details":{"reasoning_tokens":0}}}\n\n',
            "data: [DONE]\n\n",
        )
    )


@pytest.mark.parametrize("options", (None, {}, {"include_usage": False}))
async def test_usage_is_sent_only_when_asked_for(service: Service, options: object) -> None:
    """No chunk has empty choices unless include_usage asked for it."""
    async with service.post(ask(stream_options=options)) as response:
        found = chunks(await response.read())
    assert [len(chunk["choices"]) for chunk in found] == [1, 1, 1, 1]
    assert found[-1]["choices"][0]["finish_reason"] == "stop"


async def test_openais_client_reads_a_stream(service: Service) -> None:
    """The typed client joins the deltas and finds the usage."""
    stream = await service.openai.chat.completions.create(
        model="scripted/parrot",
        messages=[HI],
        stream=True,
        stream_options={"include_usage": True},
    )
    found = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in found if c.choices) == "Hello world"
    assert found[-1].usage is not None
    assert found[-1].usage.total_tokens == 4


async def test_openais_stream_helper_assembles_the_answer(service: Service) -> None:
    """The client's own accumulator accepts indices, roles and finish reasons."""
    async with service.openai.chat.completions.stream(
        model="scripted/parrot", messages=[HI]
    ) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == "Hello world"


async def test_a_refusal_is_a_status_not_an_event(start: Start) -> None:
    """Admission is decided before any header, for streams too."""
    service = await start(Script(refusal=Overloaded("The queue is full.", 3)))
    async with service.post(ask()) as response:
        assert response.status == 429
        assert response.content_type == "application/json"


async def test_a_silent_stream_is_kept_alive(start: Start) -> None:
    """After keepalive_s the header goes out without timings, and comments follow."""
    service = await start(Script(holds_before_start=True), HttpSettings(keepalive_s=0.02))
    async with service.post(ask()) as response:
        assert response.status == 200
        assert "Server-Timing" not in response.headers
        assert "X-Dovecote-Cache" not in response.headers
        assert await response.content.readexactly(28) == b": keep-alive\n\n" * 2
        service.engine.release()
        assert len(chunks(await response.read())) == 4


async def test_openais_client_skips_keep_alives(start: Start) -> None:
    """Comments never reach a program."""
    service = await start(Script(holds_before_start=True), HttpSettings(keepalive_s=0.02))
    stream = await service.openai.chat.completions.create(
        model="scripted/parrot", messages=[HI], stream=True
    )
    service.engine.release()
    assert len([chunk async for chunk in stream]) == 4


async def test_an_error_in_a_stream_is_an_event(start: Start) -> None:
    """A row that is given up ends its stream with the error, and without [DONE]."""
    service = await start(Script(fails_after=1))
    async with service.post(ask()) as response:
        *_, last = payloads(await response.read())
    assert json.loads(last) == {
        "error": {
            "message": "The row had to be given up.",
            "type": "server_error",
            "param": None,
            "code": "generation_failed",
        }
    }


async def test_openais_client_raises_an_error_in_a_stream(start: Start) -> None:
    """The error event becomes an exception with its message."""
    service = await start(Script(fails_after=1))
    stream = await service.openai.chat.completions.create(
        model="scripted/parrot", messages=[HI], stream=True
    )
    with pytest.raises(APIError, match="The row had to be given up"):
        async for _ in stream:
            pass


async def test_an_error_before_the_first_byte_is_a_status(start: Start) -> None:
    """While the header is held back, a cancel is still a status, and one not to be retried."""
    service = await start(Script(holds_before_start=True))
    asked = asyncio.ensure_future(_finish(service.post(ask())))
    await service.until(lambda: service.engine.requests)
    service.engine.cancel(service.engine.requests[0].id)
    status, raw = await asked
    assert status == 499
    assert json.loads(raw)["error"]["code"] == "cancelled"


async def test_a_stream_that_takes_too_long_ends_with_an_error(start: Start) -> None:
    """The time limit holds inside a stream, and frees the row."""
    service = await start(Script(holds_after=1), HttpSettings(request_timeout_s=0.5))
    async with service.post(ask()) as response:
        *_, last = payloads(await response.read())
    assert json.loads(last)["error"]["code"] == "request_timeout"
    await service.until(lambda: service.engine.cancelled)


async def test_a_reader_that_leaves_cancels_its_request(start: Start) -> None:
    """Closing the connection mid-stream reaches the engine, and other streams go on."""
    service = await start(Script(holds_after=1))
    other = asyncio.ensure_future(_finish(service.post(ask())))
    await service.until(lambda: service.engine.requests)
    async with service.post(ask()) as response:
        await response.content.readuntil(b"Hello")
        response.close()
    await service.until(lambda: service.engine.cancelled)
    assert service.engine.cancelled == [service.engine.requests[1].id]
    service.engine.release()
    assert len(chunks((await other)[1])) == 4


async def test_a_slow_reader_gets_everything(start: Start) -> None:
    """The engine may be done long before the reader: nothing is lost, and no other row waits."""
    piece = "x" * 2**20
    service = await start(Script(texts=(piece,) * 24))
    async with service.post(ask()) as response:
        await service.until(lambda: not service.engine.status.running)
        service.engine.script.texts = ("quick",)
        async with service.post() as other:
            assert other.status == 200
        found = chunks(await response.read())
    assert sum(len(c["choices"][0]["delta"].get("content", "")) for c in found) == 24 * 2**20


async def test_http_1_0_gets_a_stream_without_chunks(service: Service) -> None:
    """An old client reads the same events up to the connection's end."""
    body = json.dumps(ask()).encode()
    raw = await service.exchange(
        b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    head, _, events = raw.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"Transfer-Encoding" not in head
    assert len(chunks(events)) == 4


async def _finish(asked: aiohttp.client._RequestContextManager) -> tuple[int, bytes]:
    async with asked as response:
        return response.status, await response.read()
