"""Keys that keep tenants apart, over the real engine with a tiny model."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from tiny_engine import build, open_pool
from yarl import URL

from dovecote_cache import AgentBook
from dovecote_engine.request import Request
from dovecote_http import (
    Access,
    ApiError,
    EngineBridge,
    HttpSettings,
    KeyRing,
    make_app,
    parse_keys,
)
from dovecote_http.access.listener import Listener
from dovecote_http.access.tenants import OPERATOR, Tenant
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dovecote_engine.engine import Engine
    from tests.unit.http.conftest import Service, Start

HISTORY = " ".join(str(n) for n in range(40))
NAMES = ("ada", "bob", "root")
KEYS = {name: f"{name}-0123456789abcdef" for name in NAMES}
TEXT = f"ada:{KEYS['ada']}\nbob:{KEYS['bob']}\nops:{KEYS['root']} admin"


class Caller:
    """One who calls with a key."""

    def __init__(self, session: aiohttp.ClientSession, origin: str, name: str) -> None:
        self._session, self._origin = session, origin
        self._headers = {"Authorization": f"Bearer {KEYS[name]}"}

    async def call(
        self, method: str, path: str, status: int = 200, **options: Any
    ) -> dict[str, Any]:
        url = URL(f"{self._origin}/v1{path}", encoded=True)
        headers = self._headers | options.pop("headers", {})
        async with self._session.request(method, url, headers=headers, **options) as response:
            assert response.status == status, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def turn(self, agent: str | None, text: str = HISTORY, **wishes: object) -> int:
        """A chat turn; the tokens that it found in the pool."""
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "user": agent}
        answer = await self.call("POST", "/chat/completions", json=body | wishes)
        cached: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return cached

    async def agents(self) -> list[str]:
        return [each["id"] for each in (await self.call("GET", "/agents"))["data"]]

    async def export(self, name: str) -> bytes:
        url = URL(f"{self._origin}/v1/agents/{name}/archive", encoded=True)
        async with self._session.get(url, headers=self._headers) as response:
            assert response.status == 200
            return await response.read()


@asynccontextmanager
async def callers(path: Path, *, shares: bool = False) -> AsyncIterator[tuple[Caller, ...]]:
    """Ada, Bob and an administrator at one server."""

    def factory() -> Engine:
        return build(pool=open_pool(size_bytes=1 << 20), book=AgentBook.open(path))

    access = Access(KeyRing(lambda: parse_keys(TEXT)), shares_prefixes=shares)
    listener = Listener(make_app(EngineBridge(factory), HttpSettings(), access))
    try:
        await listener.prepare()
        port = await listener.open("127.0.0.1", 0)
        async with aiohttp.ClientSession() as session:
            yield tuple(Caller(session, f"http://127.0.0.1:{port}", name) for name in NAMES)
    finally:
        await listener.close()


def test_no_name_or_salt_of_one_tenant_can_be_written_by_another() -> None:
    """T1 and T2, with the names and salts that would come closest."""
    words = ("x", "@ada/x", "/x", "a/@ada/x", "ada\0x", "\0x", "")
    names, salts = set(), set()
    tenants = [Tenant(name) for name in ("ada", "ad", "ada.", "ada-x")]
    for tenant in tenants:
        names |= {tenant.agent(word) for word in words}
        salts |= {tenant.salt(word.encode()) for word in words}
    assert len(names) == len(salts) == len(words) * len(tenants)
    assert not salts & {word.encode() for word in words}


def test_the_operator_s_words_are_the_engine_s() -> None:
    request = Request("r", (1,), agent="@ada/x", salt=b"s")
    assert OPERATOR.own(request) == request
    owned = Tenant("ada", shares_prefixes=True).own(request)
    assert (owned.agent, owned.salt) == ("@ada/@ada/x", b"s")


def test_a_scoped_name_must_still_fit() -> None:
    tenant = Tenant("t" * 64)
    assert len(tenant.agent("x" * 190)) == 256
    with pytest.raises(ApiError):
        tenant.agent("x" * 191)


async def test_the_same_prompt_is_found_by_its_own_tenant_alone(tmp_path: Path) -> None:
    """Neither the other tenant nor an administrator's key finds what Ada has sent."""
    async with callers(tmp_path / "book") as (ada, bob, root):
        assert await ada.turn("planner") == 0
        assert await ada.turn("planner") == 39
        assert await bob.turn("planner") == 0
        assert await root.turn(None) == 0
        assert await bob.turn(None, cache_salt="\0") == 0
        assert await bob.turn("other") == 39


async def test_equal_prefixes_are_shared_where_the_operator_allows_it(tmp_path: Path) -> None:
    """Agents stay apart, and a client's own salt still separates."""
    async with callers(tmp_path / "book", shares=True) as (ada, bob, _):
        await ada.turn("planner")
        assert await bob.turn("planner") == 39
        assert await bob.turn(None, cache_salt="s") == 0
        assert (await bob.call("GET", "/agents/planner"))["uses"] == 1


async def test_each_sees_its_own_agents_and_the_administrator_all(tmp_path: Path) -> None:
    async with callers(tmp_path / "book") as (ada, bob, root):
        await ada.turn("planner")
        await bob.turn("planner")
        await bob.turn("@ada/planner")
        await root.turn("watch")
        assert await ada.agents() == ["planner"]
        assert await bob.agents() == ["@ada/planner", "planner"]
        assert await root.agents() == [
            "watch", "@bob/@ada/planner", "@bob/planner", "@ada/planner"
        ]  # fmt: skip
        assert (await root.call("GET", f"/agents/{quote('@ada/planner', safe='')}"))["uses"] == 1


async def test_another_tenant_s_agent_is_not_there(tmp_path: Path) -> None:
    """Whatever is asked of it, by its name or by the engine's; and it is unharmed."""
    async with callers(tmp_path / "book") as (ada, bob, _):
        await ada.turn("planner")
        before = await ada.call("GET", "/agents/planner")
        for name in ("planner", "%40ada%2Fplanner", "..%2Fada%2Fplanner"):
            for method, rest, options in (
                ("GET", "", {}),
                ("DELETE", "", {}),
                ("PATCH", "", {"json": {"name": "mine"}}),
                ("POST", "/fork", {"json": {"name": "mine"}}),
                ("GET", "/archive", {}),
            ):
                error = (await bob.call(method, f"/agents/{name}{rest}", 404, **options))["error"]
                assert error["code"] == "agent_not_found"
                assert "@bob" not in error["message"]
        assert await ada.call("GET", "/agents/planner") == before


async def test_the_scope_is_never_shown_to_its_tenant(tmp_path: Path) -> None:
    """Rename, fork, conflict and deletion speak the client's names."""
    async with callers(tmp_path / "book") as (ada, _, root):
        await ada.turn("planner")
        fork = await ada.call("POST", "/agents/planner/fork", 201, json={"name": "copy"})
        assert (fork["id"], fork["forked_from"]) == ("copy", "planner")
        taken = await ada.call("PATCH", "/agents/copy", 409, json={"name": "planner"})
        assert taken["error"]["message"] == "There is an agent 'planner' already."
        assert (await ada.call("PATCH", "/agents/copy", json={"name": "two"}))["id"] == "two"
        assert (await ada.call("DELETE", "/agents/two"))["id"] == "two"
        name = "x" * 251
        too_long = await ada.call("POST", "/agents/planner/fork", 400, json={"name": name + "x"})
        assert too_long["error"]["param"] == "name"
        await ada.call("POST", "/agents/planner/fork", 201, json={"name": name})
        empty = await ada.call("POST", "/agents/planner/fork", 400, json={"name": ""})
        assert empty["error"]["param"] == "name"
        watch = {"name": "@ada/watch"}
        await root.call("POST", "/agents/%40ada%2Fplanner/fork", 201, json=watch)
        assert (await ada.call("GET", "/agents/watch"))["forked_from"] == "planner"


async def test_an_archive_comes_in_under_its_importer_s_name_and_salt(tmp_path: Path) -> None:
    """Ada's archive neither names her at Bob's, nor can its blocks be found by her there."""
    async with callers(tmp_path / "a") as (ada, _, _), callers(tmp_path / "b") as others:
        ada_there, bob, root = others
        await ada.turn("planner")
        archive = await ada.export("planner")
        assert b"@ada" not in archive
        assert (await bob.call("POST", "/agents/archive", 201, data=archive))["id"] == "planner"
        assert await ada_there.agents() == []
        assert await ada_there.turn(None) == 0
        assert await bob.turn("planner", f"{HISTORY} 77") >= 40
        salted = await bob.call("POST", "/agents/archive?name=s&cache_salt=s", 201, data=archive)
        assert salted["id"] == "s"
        later = f"{HISTORY} 78"
        assert await bob.turn("s", later, cache_salt="s") >= 40
        # An administrator's import stays where it was: with Ada.
        await root.call("POST", "/agents/archive?name=%40ada%2Fplanner", 201, data=archive)
        assert await ada_there.turn("planner", f"{HISTORY} 79") >= 40


async def test_where_prefixes_are_shared_only_an_administrator_imports(tmp_path: Path) -> None:
    """Others could put false K and V under what everybody begins with."""
    async with callers(tmp_path / "book", shares=True) as (ada, bob, root):
        await ada.turn("planner")
        archive = await ada.export("planner")
        error = (await bob.call("POST", "/agents/archive", 403, data=archive))["error"]
        assert error["code"] == "admin_only"
        await root.call("POST", "/agents/archive?name=n", 201, data=archive)


async def test_a_request_is_cancelled_by_its_own_tenant_or_an_administrator(start: Start) -> None:
    """To others there is no such request."""
    access = Access(KeyRing(lambda: parse_keys(TEXT)))
    service = await start(Script(holds_before_start=True), access=access)

    async def cancel(name: str) -> int:
        headers = {"x-api-key": KEYS[name]}
        async with service.session.delete("/v1/requests/r", headers=headers) as response:
            return response.status

    for number, who in enumerate(("ada", "root"), 1):
        post = service.post(X_Request_ID="r", x_api_key=KEYS["ada"])
        running = asyncio.ensure_future(post)
        await service.until(partial(_has_come, service, number))
        assert await cancel("bob") == 404
        assert await cancel(who) == 200
        async with await running as response:
            assert response.status == 499


def _has_come(service: Service, count: int) -> bool:
    return len(service.engine.requests) == count
