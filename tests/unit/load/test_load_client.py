"""The load client against servers that misbehave in every way that it has to tell apart."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from load.client import Ask, BackOff, LoadClient
from load.memory import MemorySampler
from load.records import RequestResult, Usage
from load.talks import Talk
from load.workers import Due, run_load

ASK = Ask("atlas", ({"role": "user", "content": "Hello"},))
USAGE = {
    "prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4},
}  # fmt: skip
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def talking_to(answer: Answering) -> AsyncIterator[LoadClient]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server, LoadClient(f"{server.make_url('/v1')}", "m") as client:
        yield client


async def stream(request: web.Request, *chunks: dict[str, Any] | str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b": a comment\n\n")
    for chunk in chunks:
        data = chunk if isinstance(chunk, str) else json.dumps(chunk)
        await response.write(f"data: {data}\n\n".encode())
    return response


def piece(text: str | None = None, reason: str | None = None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


async def whole(request: web.Request) -> web.StreamResponse:
    return await stream(
        request, piece("He"), piece("llo"), piece(reason="stop"),
        {"choices": [], "usage": USAGE}, "[DONE]",
    )  # fmt: skip


async def test_a_whole_answer_is_told_with_its_times_and_tokens() -> None:
    async with talking_to(whole) as client:
        result = await client.ask(ASK)
    assert result.is_answered
    assert (result.text, result.finish_reason, result.status) == ("Hello", "stop", 200)
    assert result.usage == Usage(prompt=9, completion=2, cached=4)
    assert result.first_token_s is not None
    assert result.started_s <= result.first_token_s <= result.ended_s


@pytest.mark.parametrize(
    ("chunks", "error"),
    (
        ((piece("He"),), "before its \\[DONE\\]"),
        ((piece("He"), "[DONE]"), "without a finish_reason"),
        ((piece("He"), {"error": {"message": "gone"}}, "[DONE]"), "error in the stream: gone"),
        (("{",), "JSONDecodeError"),
    ),
)
async def test_an_answer_that_is_not_whole_is_an_error(chunks: tuple[Any, ...], error: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await stream(request, *chunks)

    async with talking_to(answer) as client:
        result = await client.ask(ASK)
    assert result.status == 200
    assert result.error is not None
    assert re.search(error, result.error)


async def test_a_refusal_is_tried_again_after_the_time_it_names() -> None:
    came: list[float] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        came.append(asyncio.get_running_loop().time())
        if len(came) < 3:
            return web.Response(status=429, headers={"Retry-After": "0.2"})
        return await whole(request)

    async with talking_to(answer) as client:
        result = await client.ask(ASK, BackOff(attempts=5))
    assert result.is_answered
    assert (result.refusals, result.retry_afters) == ((429, 429), ("0.2", "0.2"))
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(came))


async def test_attempts_are_bounded_and_the_last_refusal_is_the_result() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "60"})

    async with talking_to(answer) as client:
        result = await client.ask(ASK, BackOff(attempts=3, longest_s=0.01))
    assert (result.status, result.refusals) == (429, (429, 429))
    assert result.retry_afters == ("60", "60", "60")


async def test_a_failure_of_the_server_is_not_smoothed_away() -> None:
    calls = 0

    async def answer(_request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        return web.Response(status=500, text="no")

    async with talking_to(answer) as client:
        result = await client.ask(ASK, BackOff(attempts=5))
    assert (result.status, result.error, calls) == (500, "500: no", 1)


async def test_nobody_listening_is_a_result_without_a_status() -> None:
    async with LoadClient("http://127.0.0.1:1", "m") as client:
        result = await client.ask(ASK)
    assert result.status == 0
    assert not result.is_answered


async def test_no_more_are_sent_at_once_than_there_are_workers() -> None:
    gate, most = asyncio.Event(), 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal most
        most = max(most, client.in_flight)
        if client.in_flight == 100:
            gate.set()
        await gate.wait()
        return await whole(request)

    async with talking_to(answer) as client:
        due = [Due(0.0, lambda: client.ask(ASK)) for _ in range(150)]
        results = await run_load(due, workers=100)
    assert most == client.most_in_flight == 100
    assert len(results) == 150
    assert all(result.is_answered for result in results)


async def test_what_is_due_later_is_sent_later_and_results_keep_their_order() -> None:
    started = asyncio.get_running_loop().time()
    sent: list[float] = []

    async def send(number: int) -> RequestResult:
        sent.append(asyncio.get_running_loop().time() - started)
        await asyncio.sleep(0.1 if number == 0 else 0)
        return RequestResult(str(number), 0.0, 0.0, 200)

    due = [Due(at, partial(send, n)) for n, at in enumerate((0.0, 0.05, 0.15))]
    results = await run_load(due, workers=2)
    assert [result.agent for result in results] == ["0", "1", "2"]
    assert all(at >= wanted for at, wanted in zip(sent, (0.0, 0.05, 0.15), strict=True))


async def test_a_talk_sends_its_history_in_order_and_begins_anew() -> None:
    bodies: list[list[dict[str, str]]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        bodies.append((await request.json())["messages"])
        if len(bodies) == 2:
            return web.Response(status=500)
        return await whole(request)

    async with talking_to(answer) as client:
        talk = Talk(client, "atlas", turns_before_restart=2)
        await asyncio.gather(*(talk.turn() for _ in range(4)))
    roles = [[message["role"] for message in body] for body in bodies]
    first = ["system", "user"]
    assert roles == [first, [*first, "assistant", "user"], [*first, "assistant", "user"], first]
    assert bodies[1][:3] == bodies[2][:3]
    assert bodies[1][3] != bodies[2][3]
    assert "atlas" in bodies[0][0]["content"]


async def test_memory_is_sampled_until_the_end() -> None:
    async with MemorySampler(os.getpid(), every_s=0.01) as sampler:
        while len(sampler.samples) < 3:
            await asyncio.sleep(0.01)
    assert all(sample.rss_bytes > 2**20 for sample in sampler.samples)
    async with MemorySampler(None) as unwatched:
        pass
    assert unwatched.samples == []
