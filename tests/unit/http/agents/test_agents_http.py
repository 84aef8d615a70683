"""Agents over HTTP, with the real engine over a tiny model."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from tiny_engine import build, open_pool
from yarl import URL

from dovecote_cache import AgentBook
from dovecote_http import EngineBridge, HttpSettings, make_app
from dovecote_http.access.listener import Listener
from dovecote_http.agents.agents import _made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dovecote_engine.engine import Engine

HISTORY = " ".join(str(n) for n in range(40))
ODD_NAMES = ("a/b", "../../etc/passwd", "ünï 💡", "100%", "%2F", "?x#y", "archive", "a+b", "'\"&;=")


class Client:
    """Calls on one service, with the status checked and the JSON decoded."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self.session = session
        self._origin = origin

    async def call(
        self, method: str, path: str, status: int = 200, **options: Any
    ) -> dict[str, Any]:
        async with self.request(method, path, **options) as response:
            assert response.status == status, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    def request(
        self, method: str, path: str, **options: Any
    ) -> aiohttp.client._RequestContextManager:
        url = URL(f"{self._origin}/v1/agents{path}", encoded=True)
        return self.session.request(method, url, **options)

    async def error(
        self, method: str, path: str, status: int, **options: Any
    ) -> tuple[str | None, str | None]:
        """Code and parameter of an error in OpenAI's shape."""
        error = (await self.call(method, path, status, **options))["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        return error["code"], error["param"]

    async def turn(self, agent: str, text: str = HISTORY) -> int:
        """A chat turn; the tokens that it found in the pool."""
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "user": agent}
        async with self.session.post(f"{self._origin}/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            usage = (await response.json())["usage"]
        cached: int = usage["prompt_tokens_details"]["cached_tokens"]
        return cached

    async def export(self, path: str) -> bytes:
        async with self.request("GET", f"{path}/archive") as response:
            assert response.status == 200
            assert response.content_type == "application/octet-stream"
            archive = await response.read()
            assert response.content_length == len(archive)
            return archive


async def _serve(book_path: Path) -> AsyncIterator[Client]:
    def factory() -> Engine:
        book = AgentBook.open(book_path)
        return build(pool=open_pool(size_bytes=1 << 20), book=book)

    listener = Listener(make_app(EngineBridge(factory), HttpSettings()))
    try:
        await listener.prepare()
        port = await listener.open("127.0.0.1", 0)
        async with aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{port}")
    finally:
        await listener.close()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async for client in _serve(tmp_path / "one.db"):
        yield client


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Client]:
    """Another service, with a pool of its own."""
    async for client in _serve(tmp_path / "two.db"):
        yield client


async def test_an_agent_is_listed_with_what_it_holds(client: Client) -> None:
    await client.turn("anna")
    listing = await client.call("GET", "")
    anna = await client.call("GET", "/anna")
    assert listing == {"object": "list", "data": [anna]}
    assert (anna["id"], anna["object"], anna["model"]) == ("anna", "agent", "tiny")
    assert anna["tokens"] == anna["cached_tokens"] == 41
    assert anna["bytes"] == anna["own_bytes"] > 0
    assert anna["shared_bytes"] == anna["pinned_bytes"] == anna["hit_tokens"] == 0
    assert anna["last_used"] >= anna["created"] > 0
    assert anna["uses"] == 1
    assert not anna["pinned"]
    assert not anna["busy"]
    assert anna["ttl_s"] is anna["expires"] is anna["forked_from"] is None


async def test_a_turn_that_is_sent_again_adds_nothing_twice(client: Client) -> None:
    """Clients repeat what they saw no answer of: the agent has one turn's tokens, found again."""
    assert await client.turn("anna") == 0
    once = await client.call("GET", "/anna")
    assert await client.turn("anna") >= 39
    again = await client.call("GET", "/anna")
    assert (again["tokens"], again["bytes"]) == (once["tokens"], once["bytes"])
    assert (again["uses"], again["hit_tokens"] >= 39) == (2, True)


async def test_a_fork_goes_on_from_the_parents_history(client: Client) -> None:
    await client.turn("anna")
    fork = await client.call("POST", "/anna/fork", 201, json={"name": "otto"})
    assert (fork["id"], fork["forked_from"], fork["own_bytes"]) == ("otto", "anna", 0)
    assert fork["shared_bytes"] == fork["bytes"] > 0
    assert await client.turn("otto", f"{HISTORY} 77") >= 40
    deleted = await client.call("DELETE", "/anna")
    assert (deleted["id"], deleted["object"], deleted["deleted"]) == ("anna", "agent.deleted", True)
    assert await client.turn("otto", f"{HISTORY} 78") >= 40


async def test_settings_are_changed_together_or_not_at_all(client: Client) -> None:
    await client.turn("anna")
    changes = {"name": "Anna", "pinned": True, "ttl_s": 3600}
    anna = await client.call("PATCH", "/anna", json=changes)
    assert (anna["id"], anna["pinned"], anna["ttl_s"]) == ("Anna", True, 3600)
    assert anna["pinned_bytes"] == anna["bytes"]
    assert anna["expires"] - anna["last_used"] in range(3599, 3602)
    await client.call("GET", "/anna", 404)
    assert await client.call("PATCH", "/Anna", json={}) == anna
    anna = await client.call("PATCH", "/Anna", json={"pinned": False, "ttl_s": None})
    assert (anna["pinned"], anna["ttl_s"], anna["pinned_bytes"]) == (False, None, 0)


@pytest.mark.parametrize(
    ("body", "param"),
    (
        ({"pinned": "yes"}, "pinned"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": "soon"}, "ttl_s"),
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": None}, "name"),
        ({"tip": "x"}, None),
        ([], None),
    ),
)
async def test_a_wrong_setting_is_400_and_named(
    client: Client, body: object, param: str | None
) -> None:
    await client.turn("anna")
    before = await client.call("GET", "/anna")
    _, named = await client.error("PATCH", "/anna", 400, json=body)
    assert (named or None) == param
    assert await client.call("GET", "/anna") == before


async def test_who_is_unknown_is_404_and_what_is_taken_409(client: Client) -> None:
    await client.turn("anna")
    await client.turn("otto")
    for method, path, options in (
        ("GET", "/nobody", {}),
        ("DELETE", "/nobody", {}),
        ("GET", "/nobody/archive", {}),
        ("PATCH", "/nobody", {"json": {}}),
        ("POST", "/nobody/fork", {"json": {"name": "x"}}),
    ):
        error = await client.error(method, path, 404, **options)
        assert error == ("agent_not_found", "name")
    taken = ("agent_exists", "name")
    assert await client.error("PATCH", "/anna", 409, json={"name": "otto"}) == taken
    assert await client.error("POST", "/anna/fork", 409, json={"name": "otto"}) == taken
    assert await client.error("POST", "/anna/fork", 400, json={}) == (None, "name")


async def test_pins_beyond_their_share_are_409(client: Client) -> None:
    """The message has the numbers, and the agent is as it was."""
    for n in range(6):
        text = " ".join(str((n + i * (n + 1)) % 100) for i in range(200))
        await client.turn(f"agent {n}", text)
    statuses = []
    for n in range(6):
        async with client.request("PATCH", f"/agent%20{n}", json={"pinned": True}) as response:
            statuses.append(response.status)
    assert statuses[0] == 200
    assert statuses[-1] == 409
    code, param = await client.error("PATCH", "/agent%205", 409, json={"pinned": True})
    assert (code, param) == ("pins_exhausted", "pinned")
    assert not (await client.call("GET", "/agent%205"))["pinned"]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_any_printable_name_has_its_path(client: Client, name: str) -> None:
    """Percent-encoded it reaches the agent of just that name, and is never taken for a file."""
    await client.turn("anna")
    path = f"/{quote(name, safe='')}"
    assert (await client.call("POST", "/anna/fork", 201, json={"name": name}))["id"] == name
    assert (await client.call("GET", path))["id"] == name
    assert await client.export(path)
    assert (await client.call("PATCH", path, json={"name": f"{name}!"}))["id"] == f"{name}!"
    assert (await client.call("DELETE", f"{path}!"))["deleted"]
    assert [each["id"] for each in (await client.call("GET", ""))["data"]] == ["anna"]


async def test_an_archive_moves_an_agent_to_another_server(client: Client, other: Client) -> None:
    await client.turn("anna")
    archive = await client.export("/anna")
    imported = await other.call("POST", "/archive", 201, data=archive)
    assert (imported["id"], imported["cached_tokens"], imported["uses"]) == ("anna", 41, 0)
    assert await other.turn("anna", f"{HISTORY} 77") >= 40
    assert await other.error("POST", "/archive", 409, data=archive) == ("agent_exists", "name")
    second = await other.call("POST", "/archive?name=two%2F2", 201, data=archive)
    assert second["id"] == "two/2"


async def test_a_bad_archive_is_400_and_leaves_nothing(client: Client, other: Client) -> None:
    await client.turn("anna")
    archive = await client.export("/anna")
    flipped = archive[:900] + bytes([archive[900] ^ 1]) + archive[901:]
    for wrong in (b"", archive[:-1], flipped, b"nonsense" * 100):
        assert await other.error("POST", "/archive", 400, data=wrong) == ("bad_archive", None)
    assert (await other.call("GET", ""))["data"] == []


async def test_an_archive_that_cannot_fit_is_413(other: Client) -> None:
    """By its announced length before it is read, by its real one while it is."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 16)

    error = await other.error("POST", "/archive", 413, data=chunks())
    assert error == ("request_too_large", None)


async def test_temporary_files_are_gone_afterwards(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads and uploads, good and bad, leave nothing behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    await client.turn("anna")
    archive = await client.export("/anna")
    await client.error("POST", "/archive", 409, data=archive)
    await client.error("POST", "/archive", 400, data=b"x")
    assert list(scratch.iterdir()) == []


async def test_what_a_thread_makes_for_a_caller_who_left_is_undone() -> None:
    """A file that opens after its client has gone is closed, a directory removed."""
    may_make, undone = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def undo(made: str) -> None:
        assert made == "made"
        loop.call_soon_threadsafe(undone.set)

    def make() -> str:
        assert may_make.wait(20)
        return "made"

    making = asyncio.create_task(_made(make, undo))
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    may_make.set()
    await asyncio.wait_for(undone.wait(), 20)
