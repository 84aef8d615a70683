"""The overview, once and as a stream, over the real engine with a tiny model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tiny_engine import build, open_pool

from dovecote_cache import AgentBook
from dovecote_http import EngineBridge, HttpSettings, make_app
from dovecote_http.access.access import Access
from dovecote_http.access.api_keys import KeyRing, parse_keys
from dovecote_http.access.listener import Listener
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dovecote_engine.engine import Engine
    from tests.unit.http.conftest import Start

SHARED = " ".join(str(n) for n in range(24))
ADMIN = {"Authorization": "Bearer admin-0123456789abcdef"}
ACME = {"Authorization": "Bearer acme-0123456789abcdef"}


async def _serve(access: Access | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    def factory() -> Engine:
        return build(pool=open_pool(size_bytes=1 << 20), book=AgentBook.in_memory())

    listener = Listener(make_app(EngineBridge(factory), HttpSettings(), access))
    try:
        await listener.prepare()
        port = await listener.open("127.0.0.1", 0)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session
    finally:
        await listener.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A server without keys."""
    async for each in _serve():
        yield each


@pytest.fixture
async def guarded() -> AsyncIterator[aiohttp.ClientSession]:
    """A server with an admin and a tenant."""
    lines = "boss:admin-0123456789abcdef admin\nacme:acme-0123456789abcdef\n"
    async for each in _serve(Access(KeyRing(lambda: parse_keys(lines)))):
        yield each


async def turn(session: aiohttp.ClientSession, agent: str, text: str, **headers: Any) -> None:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "user": agent}
    async with session.post("/v1/chat/completions", json=body, **headers) as response:
        assert response.status == 200, await response.text()


async def overview(session: aiohttp.ClientSession, **headers: Any) -> dict[str, Any]:
    async with session.get("/v1/overview", **headers) as response:
        assert response.status == 200
        told: dict[str, Any] = await response.json()
        return told


async def test_an_overview_tells_of_pool_agents_and_runs(session: aiohttp.ClientSession) -> None:
    """Frames add up, and what two agents have in common is one run that both own."""
    await turn(session, "anna", f"{SHARED} 50 51")
    await turn(session, "beth", f"{SHARED} 60 61")
    told = await overview(session)
    pool = told["pool"]
    assert pool["leased"] + pool["cached"] + pool["free"] == pool["frames"]
    names = [agent["id"] for agent in told["agents"]]
    assert sorted(names) == ["anna", "beth"]
    owners = {
        frozenset(names[place] for place in run["owners"]): run["blocks"] for run in told["runs"]
    }
    assert owners == {frozenset(names): 3, frozenset(["anna"]): 1, frozenset(["beth"]): 1}
    assert (told["state"], told["model"], told["agents_total"]) == ("up", "tiny", 2)
    assert told["history"]["slot_s"] > 0
    lengths = {len(value) for value in told["history"].values() if isinstance(value, list)}
    assert len(lengths) == 1


async def test_a_stream_tells_of_it_again_and_again(session: aiohttp.ClientSession) -> None:
    """Each event is an overview."""
    async with session.get("/v1/overview/stream") as response:
        assert response.content_type == "text/event-stream"
        for _ in range(2):
            line = await response.content.readline()
            assert json.loads(line.removeprefix(b"data: "))["object"] == "overview"
            assert await response.content.readline() == b"\n"


async def test_a_tenant_is_told_of_its_own_alone(guarded: aiohttp.ClientSession) -> None:
    """Its agents by the names it gave them; nothing of others' load, queue or blocks."""
    await turn(guarded, "anna", SHARED, headers=ACME)
    await turn(guarded, "secret", SHARED, headers=ADMIN)
    told = await overview(guarded, headers=ACME)
    assert [agent["id"] for agent in told["agents"]] == ["anna"]
    assert told["agents_total"] == 1
    assert {owner for run in told["runs"] for owner in run["owners"]} == {0}
    assert (told["pool"], told["running"], told["waiting"], told["history"]) == (None,) * 4
    assert "secret" not in json.dumps(told)
    admin = await overview(guarded, headers=ADMIN)
    assert {agent["id"] for agent in admin["agents"]} == {"@acme/anna", "secret"}
    async with guarded.get("/v1/overview") as response:
        assert response.status == 401
    async with guarded.get("/") as page:
        assert page.status == 200


async def test_without_an_engine_the_overview_says_so(start: Start) -> None:
    """It is what people look at when something is wrong: 200, with the state."""
    service = await start(Script(crashes_after=0))
    for _ in range(2):
        async with service.post() as response:
            assert response.status in (500, 503)
    while service.bridge.health.state != "down":
        async with service.post() as response:
            assert response.status in (500, 503)
    told = await overview(service.session)
    assert (told["state"], told["pool"], told["model"]) == ("down", None, None)


async def test_the_stream_ends_with_a_drain(start: Start) -> None:
    """A page left open does not hold up a shutdown."""
    service = await start()
    assert await service.bridge.drain(1)
    async with service.session.get("/v1/overview/stream") as response:
        lines = (await response.read()).splitlines()
    assert json.loads(lines[0].removeprefix(b"data: "))["draining"] is True
    assert len(lines) == 2
