"""What the counts say of the cache, in every protocol: the real engine over a tiny model, read by
the clients themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from tiny_engine import BLOCK, GEOMETRY, build, open_pool, recurrent

from dovecote_http import EngineBridge, HttpSettings, make_app
from dovecote_http.access.listener import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anthropic.types import Usage

    from dovecote_engine.engine import Engine

FIRST = " ".join(str(number) for number in range(5 * BLOCK))
SECOND = f"{FIRST} 7 7 7"
COUNTS = [(0, 5 * BLOCK), (5 * BLOCK, 3)]
"""Of the prompts above: what came from the pool, and what was put there."""

Clients = tuple[AsyncOpenAI, AsyncAnthropic]
Counts = tuple[int, int | None, int | None]
"""Of the prompt: all tokens, those read from the pool, those written to it."""
Ask = Callable[[Clients, str], Awaitable[Counts]]


@asynccontextmanager
async def clients_of(factory: Callable[[], Engine]) -> AsyncIterator[Clients]:
    listener = Listener(make_app(EngineBridge(factory), HttpSettings()))
    try:
        await listener.prepare()
        url = f"http://127.0.0.1:{await listener.open('127.0.0.1', 0)}"
        async with (
            AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as openai,
            AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as anthropic,
        ):
            yield openai, anthropic
    finally:
        await listener.close()


async def chat(clients: Clients, prompt: str) -> Counts:
    completion = await clients[0].chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": prompt}], max_tokens=1
    )
    assert completion.usage is not None
    details = completion.usage.prompt_tokens_details
    assert details is not None
    return completion.usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens


async def chat_stream(clients: Clients, prompt: str) -> Counts:
    stream = await clients[0].chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": prompt}],
        max_tokens=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    (usage,) = [chunk.usage async for chunk in stream if chunk.usage is not None]
    details = usage.prompt_tokens_details
    assert details is not None
    return usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens


async def text(clients: Clients, prompt: str) -> Counts:
    completion = await clients[0].completions.create(model="tiny", prompt=prompt, max_tokens=1)
    assert completion.usage is not None
    details = completion.usage.prompt_tokens_details
    assert details is not None
    return completion.usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens


async def response(clients: Clients, prompt: str) -> Counts:
    told = await clients[0].responses.create(model="tiny", input=prompt, max_output_tokens=1)
    assert told.usage is not None
    details = told.usage.input_tokens_details
    return told.usage.input_tokens, details.cached_tokens, details.cache_write_tokens


async def message(clients: Clients, prompt: str) -> Counts:
    told = await clients[1].messages.create(
        model="tiny", messages=[{"role": "user", "content": prompt}], max_tokens=1
    )
    return _whole(told.usage)


async def message_stream(clients: Clients, prompt: str) -> Counts:
    """The counts of the end, which the client's accumulator takes for those of the message."""
    async with clients[1].messages.stream(
        model="tiny", messages=[{"role": "user", "content": prompt}], max_tokens=1
    ) as stream:
        return _whole((await stream.get_final_message()).usage)


def _whole(usage: Usage) -> Counts:
    """The three parts of the input add up to the prompt."""
    read, created = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return usage.input_tokens + read + created, read, created


@pytest.mark.parametrize("ask", (chat, chat_stream, text, response, message, message_stream))
async def test_a_first_turn_writes_its_prompt_and_the_next_one_what_is_new(ask: Ask) -> None:
    """In one piece and in streams: what was read and what was written, and the whole prompt."""
    async with clients_of(lambda: build(pool=open_pool())) as clients:
        told = [await ask(clients, prompt) for prompt in (FIRST, SECOND)]
    assert told == [(read + written, read, written) for read, written in COUNTS]


@pytest.mark.parametrize("ask", (chat, message))
async def test_what_cannot_be_cached_is_not_told_to_be_written(ask: Ask) -> None:
    async with clients_of(lambda: build(recurrent())) as clients:
        assert await ask(clients, FIRST) == (5 * BLOCK, 0, 0)


@pytest.mark.parametrize("ask", (chat, message))
async def test_a_pool_that_is_too_small_is_told_by_what_was_written(ask: Ask) -> None:
    """The rest of the prompt is neither read nor written."""
    size = GEOMETRY.file_bytes("exact", 2 * BLOCK)
    async with clients_of(lambda: build(pool=open_pool(size_bytes=size))) as clients:
        assert await ask(clients, FIRST) == (5 * BLOCK, 0, 2 * BLOCK)


async def test_a_message_that_begins_tells_what_was_read() -> None:
    """What will be written is not known yet: until the end it counts as input."""
    async with clients_of(lambda: build(pool=open_pool())) as clients:
        await message(clients, FIRST)
        stream = await clients[1].messages.create(
            model="tiny",
            messages=[{"role": "user", "content": SECOND}],
            max_tokens=1,
            stream=True,
        )
        events = [event async for event in stream]
    first, end = events[0], events[-2]
    assert first.type == "message_start"
    usage = first.message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (3, 5 * BLOCK)
    assert usage.cache_creation_input_tokens == 0
    assert end.type == "message_delta"
    assert (end.usage.input_tokens, end.usage.cache_creation_input_tokens) == (0, 3)
