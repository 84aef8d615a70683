"""What a prompt would find, asked over HTTP of the real engine over a tiny model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tiny_engine import build

from dovecote_cache import AgentBook
from dovecote_http import EngineBridge, HttpSettings, make_app
from dovecote_http.access.listener import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

FIRST = tuple(range(40))


class Client:
    """A service and calls on it, with tokens for text."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(
        self, path: str, tokens: Sequence[int], agent: str | None
    ) -> tuple[dict[str, Any], str]:
        """The answer and its cache header."""
        text = " ".join(map(str, tokens))
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        headers = {} if agent is None else {"X-Agent-ID": agent}
        async with self._session.post(path, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.json(), response.headers.get("X-Dovecote-Cache", "")

    async def probe(self, tokens: Sequence[int], agent: str | None = None) -> dict[str, Any]:
        return (await self.post("/v1/cache/probe", tokens, agent))[0]

    async def turn(self, tokens: Sequence[int], agent: str | None = None) -> str:
        return (await self.post("/v1/chat/completions", tokens, agent))[1]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    bridge = EngineBridge(lambda: build(book=AgentBook.in_memory()))
    listener = await Listener(make_app(bridge, HttpSettings())).prepare()
    port = await listener.open("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield Client(session)
    await listener.close()


async def test_an_empty_cache_has_nothing(client: Client) -> None:
    """And asking leaves nothing behind: the turn that follows finds nothing."""
    told = await client.probe(FIRST, "a")
    assert (told["prompt_tokens"], told["cached_tokens"]) == (40, 0)
    assert (told["agent"], told["history_tokens"], told["divergence"]) == ("a", None, None)
    assert await client.turn(FIRST, "a") == "miss; missed=new"
    assert (await client.probe(FIRST, "b"))["history_tokens"] is None


async def test_a_history_that_goes_on_does_not_diverge(client: Client) -> None:
    """What is forecast is what the turn then finds."""
    await client.turn(FIRST, "a")
    told = await client.probe((*FIRST, 50, 51), "a")
    assert told["divergence"] is None
    assert (told["cached_tokens"], told["history_tokens"], told["known_tokens"]) == (40, 40, 40)
    assert await client.turn((*FIRST, 50, 51), "a") == "hit; tokens=40; source=own"


async def test_the_first_token_that_differs_is_named(client: Client) -> None:
    """With what stands on either side from there on."""
    await client.turn(FIRST, "a")
    other = (*FIRST[:19], 77, *FIRST[20:])
    told = await client.probe(other, "a")
    assert told["cached_tokens"] == 19
    assert told["divergence"]["token"] == 19
    assert told["divergence"]["prompt_text"].startswith("<77><20><21>")
    assert told["divergence"]["history_text"].startswith("<19><20><21>")
    assert await client.turn(other, "a") == "hit; tokens=19; source=own; missed=diverged; at=19"


async def test_other_agents_histories_are_not_told(client: Client) -> None:
    """Their blocks are found, as a turn would; where they go on is their own affair."""
    await client.turn(FIRST, "a")
    told = await client.probe((*FIRST[:19], 77), "b")
    assert (told["cached_tokens"], told["divergence"]) == (19, None)
    assert await client.turn((*FIRST, 1), "b") == "hit; tokens=40; source=shared; missed=new"


async def test_a_shorter_prompt_does_not_diverge(client: Client) -> None:
    """It ends within the history, as when an answer is asked for once more."""
    await client.turn(FIRST, "a")
    told = await client.probe(FIRST[:20], "a")
    assert (told["cached_tokens"], told["divergence"]) == (19, None)
