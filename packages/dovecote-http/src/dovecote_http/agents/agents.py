"""/v1/agents: list, look at, change, fork, delete, export and import agents.

    GET    /agents                  all of them
    GET    /agents/{name}           one
    PATCH  /agents/{name}           name, pinned, ttl_s
    POST   /agents/{name}/fork      {"name": ...}
    DELETE /agents/{name}
    GET    /agents/{name}/archive   a file with its blocks
    POST   /agents/archive?name=&cache_salt=    such a file

Names hold any printable characters and come percent-encoded. They never become paths: archives pass
through temporary files of the system's own naming, since neither a slow client nor a cut connection
may hold a lease or leave half an agent. All work is done in worker threads.

Does not know the book or the pool.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from dovecote_engine.agents.agent import AgentChanges
from dovecote_http.access.api_keys import tenant_of
from dovecote_http.access.intake import received
from dovecote_http.agents.tenant_agents import TenantAgents
from dovecote_http.answers.bodies import decode_body
from dovecote_http.errors import admin_only, invalid
from dovecote_http.keys import BRIDGE, SETTINGS
from dovecote_http.middlewares import expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dovecote_engine.agents.agent import AgentView

T = TypeVar("T")

_CHUNK_BYTES = 1 << 18
_ARCHIVE_TYPE = "application/octet-stream"
_LONGEST_SALT = 256
_HEADROOM_BYTES = 1 << 20
"""What an archive of the whole pool takes beside its blocks and recurrent states."""
_STATES_SHARE = 3
"""Recurrent states take a third of what the pool takes, at most."""


class AgentBody(Struct, frozen=True):
    """An agent. Times in unix seconds; bytes are those of its blocks in the pool."""

    id: str
    object: str
    model: str
    tokens: int
    cached_tokens: int
    bytes: int
    own_bytes: int
    shared_bytes: int
    pinned_bytes: int
    created: int
    last_used: int
    uses: int
    hit_tokens: int
    pinned: bool
    ttl_s: float | None
    expires: int | None
    forked_from: str | None
    busy: bool


class AgentList(Struct, frozen=True):
    """All agents, the most recently used first."""

    object: str
    data: list[AgentBody]


class Deletion(Struct, frozen=True):
    """What a deletion did."""

    id: str
    object: str
    deleted: bool
    freed_blocks: int


class Changes(Struct, frozen=True, forbid_unknown_fields=True):
    """What to change; `ttl_s` null: until it is deleted."""

    name: str | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    ttl_s: float | UnsetType | None = UNSET


class Fork(Struct, frozen=True, forbid_unknown_fields=True):
    """The name of the new agent."""

    name: str


async def agents(request: web.Request) -> web.Response:
    """All agents of the served model."""
    found = await _ask(request, lambda agents: agents.list())
    return _json(AgentList("list", [_body(agent) for agent in found]))


async def agent(request: web.Request) -> web.Response:
    """One agent."""
    name = request.match_info["name"]
    return _json(_body(await _ask(request, lambda agents: agents.get(name))))


async def change(request: web.Request) -> web.Response:
    """Changes all that the body asks for, or nothing."""
    name = request.match_info["name"]
    changes = _changes(decode_body(await request.read(), Changes))
    changed = await _ask(request, lambda agents: agents.change(name, changes))
    return _json(_body(changed))


async def fork(request: web.Request) -> web.Response:
    """A new agent over the same chain."""
    name = request.match_info["name"]
    new_name = decode_body(await request.read(), Fork).name
    forked = await _ask(request, lambda agents: agents.fork(name, new_name))
    return _json(_body(forked), status=201)


async def delete(request: web.Request) -> web.Response:
    """Forgets the agent and frees what is its own."""
    name = request.match_info["name"]
    freed = await _ask(request, lambda agents: agents.delete(name))
    return _json(Deletion(name, "agent.deleted", deleted=True, freed_blocks=freed))


async def export(request: web.Request) -> web.StreamResponse:
    """The agent's archive. It is complete before its first byte is sent."""
    name = request.match_info["name"]
    async with _temporary_file() as path:
        await _ask(request, lambda agents: agents.export(name, path))
        return await _send(request, path, name)


async def import_(request: web.Request) -> web.Response:
    """The agent of an archive. It is received and verified before any of it is taken."""
    name, salt = request.query.get("name"), _salt(request)
    if tenant_of(request).shares_prefixes:  # nobody can tell whether its K and V are true
        raise admin_only()
    pool = (await request.app[BRIDGE].status()).pool
    async with _temporary_file() as path:
        states_bytes = pool.file_bytes // _STATES_SHARE
        await _receive(request, path, pool.file_bytes + states_bytes + _HEADROOM_BYTES)
        imported = await _ask(request, lambda agents: agents.import_(path, name, salt))
    return _json(_body(imported), status=201)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this module under the prefix."""
    add = {
        method: partial(web.route, method, expect_handler=expect)
        for method in ("GET", "POST", "PATCH", "DELETE")
    }
    one = f"{prefix}/agents/{{name}}"
    return [
        add["GET"](f"{prefix}/agents", agents),
        add["POST"](f"{prefix}/agents/archive", import_),
        add["GET"](one, agent),
        add["PATCH"](one, change),
        add["DELETE"](one, delete),
        add["POST"](f"{one}/fork", fork),
        add["GET"](f"{one}/archive", export),
    ]


async def _ask(request: web.Request, call: Callable[[TenantAgents], T]) -> T:
    """What the caller gets of its agents. Raises: as `EngineBridge.ask`."""
    tenant = tenant_of(request)
    return await request.app[BRIDGE].ask(lambda engine: call(TenantAgents(engine.agents, tenant)))


def _salt(request: web.Request) -> bytes | None:
    """The salt that an import asks for. Raises: ApiError (400)."""
    given = request.query.get("cache_salt")
    if given is None:
        return None
    if not 1 <= len(given) <= _LONGEST_SALT:
        raise invalid(f"'cache_salt' must be 1 to {_LONGEST_SALT} characters.", "cache_salt")
    return given.encode("utf-8", "replace")


def _changes(body: Changes) -> AgentChanges:
    ttl_s = math.inf if body.ttl_s is None else _given(body.ttl_s)
    if ttl_s is not None and not ttl_s > 0:
        raise invalid("'ttl_s' must be more than 0, or null.", "ttl_s")
    return AgentChanges(_given(body.name), _given(body.pinned), ttl_s)


def _given(value: T | UnsetType) -> T | None:
    return None if isinstance(value, UnsetType) else value


def _body(view: AgentView) -> AgentBody:
    return AgentBody(
        id=view.name,
        object="agent",
        model=view.model,
        tokens=view.tokens,
        cached_tokens=view.cached_tokens,
        bytes=view.bytes,
        own_bytes=view.own_bytes,
        shared_bytes=view.shared_bytes,
        pinned_bytes=view.pinned_bytes,
        created=int(view.created),
        last_used=int(view.last_used),
        uses=view.uses,
        hit_tokens=view.hit_tokens,
        pinned=view.pinned,
        ttl_s=view.ttl_s,
        expires=None if view.expires is None else int(view.expires),
        forked_from=view.forked_from,
        busy=view.busy,
    )


def _json(body: Struct, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json"
    )


@asynccontextmanager
async def _temporary_file() -> AsyncIterator[Path]:
    """A path that nobody else can open (0700 above it), removed at the end with what is there."""
    make = partial(TemporaryDirectory, prefix="dovecote-archive-")
    folder = await _made(make, TemporaryDirectory.cleanup)
    try:
        yield Path(folder.name) / "agent"
    finally:
        await asyncio.shield(asyncio.to_thread(folder.cleanup))


@asynccontextmanager
async def _opened(path: Path, mode: Literal["rb", "xb"]) -> AsyncIterator[IO[bytes]]:
    """The file, closed at the end, whenever that is."""
    file: IO[bytes] = await _made(lambda: path.open(mode), _close)
    try:
        yield file
    finally:
        await asyncio.shield(asyncio.to_thread(file.close))


def _close(file: IO[bytes]) -> None:
    file.close()


async def _made(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """What `make` gives, called in a thread; undone there if the caller has left by then."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        loop = asyncio.get_running_loop()
        making.add_done_callback(
            lambda made: (
                None
                if made.cancelled() or made.exception()
                else loop.run_in_executor(None, undo, made.result())
            )
        )
        raise


async def _send(request: web.Request, path: Path, name: str) -> web.StreamResponse:
    async with _opened(path, "rb") as file:
        response = web.StreamResponse(
            headers={
                "Content-Type": _ARCHIVE_TYPE,
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            }
        )
        response.content_length = (await asyncio.to_thread(path.stat)).st_size
        await response.prepare(request)
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            await response.write(chunk)
        await response.write_eof()
    return response


async def _receive(request: web.Request, path: Path, most_bytes: int) -> None:
    """Raises: ApiError, 413 if the body is longer and 408 if it does not keep coming."""
    async with _opened(path, "xb") as file:
        async for chunk in received(request, most_bytes, request.app[SETTINGS]):
            await asyncio.to_thread(file.write, chunk)
