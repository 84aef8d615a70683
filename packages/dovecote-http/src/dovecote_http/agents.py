"""/v1/agents: list, look at, change, fork, delete, export and import agents.

    GET    /agents                  all of them
    GET    /agents/{name}           one
    PATCH  /agents/{name}           name, pinned, ttl_s
    POST   /agents/{name}/fork      {"name": ...}
    DELETE /agents/{name}
    GET    /agents/{name}/archive   a file with its blocks
    POST   /agents/archive?name=    such a file

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
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from dovecote_engine.agent import AgentChanges
from dovecote_http.bodies import decode_body
from dovecote_http.errors import invalid, too_large
from dovecote_http.keys import BRIDGE
from dovecote_http.middlewares import expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dovecote_engine.agent import AgentView

T = TypeVar("T")

_CHUNK_BYTES = 1 << 18
_ARCHIVE_TYPE = "application/octet-stream"
_HEADROOM_BYTES = 1 << 20
"""What an archive of the whole pool takes beside its blocks."""


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
    found = await request.app[BRIDGE].ask(lambda engine: engine.agents.list())
    return _json(AgentList("list", [_body(agent) for agent in found]))


async def agent(request: web.Request) -> web.Response:
    """One agent."""
    name = request.match_info["name"]
    return _json(_body(await request.app[BRIDGE].ask(lambda engine: engine.agents.get(name))))


async def change(request: web.Request) -> web.Response:
    """Changes all that the body asks for, or nothing."""
    name = request.match_info["name"]
    changes = _changes(decode_body(await request.read(), Changes))
    changed = await request.app[BRIDGE].ask(lambda engine: engine.agents.change(name, changes))
    return _json(_body(changed))


async def fork(request: web.Request) -> web.Response:
    """A new agent over the same chain."""
    name = request.match_info["name"]
    new_name = decode_body(await request.read(), Fork).name
    forked = await request.app[BRIDGE].ask(lambda engine: engine.agents.fork(name, new_name))
    return _json(_body(forked), status=201)


async def delete(request: web.Request) -> web.Response:
    """Forgets the agent and frees what is its own."""
    name = request.match_info["name"]
    freed = await request.app[BRIDGE].ask(lambda engine: engine.agents.delete(name))
    return _json(Deletion(name, "agent.deleted", deleted=True, freed_blocks=freed))


async def export(request: web.Request) -> web.StreamResponse:
    """The agent's archive. It is complete before its first byte is sent."""
    name = request.match_info["name"]
    async with _temporary_file() as path:
        await request.app[BRIDGE].ask(lambda engine: engine.agents.export(name, path))
        return await _send(request, path, name)


async def import_(request: web.Request) -> web.Response:
    """The agent of an archive. It is received and verified before any of it is taken."""
    name = request.query.get("name")
    pool = (await request.app[BRIDGE].status()).pool
    async with _temporary_file() as path:
        await _receive(request, path, pool.file_bytes + _HEADROOM_BYTES)
        imported = await request.app[BRIDGE].ask(lambda engine: engine.agents.import_(path, name))
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
    folder = await asyncio.to_thread(TemporaryDirectory, prefix="dovecote-archive-")
    try:
        yield Path(folder.name) / "agent"
    finally:
        await asyncio.to_thread(folder.cleanup)


async def _send(request: web.Request, path: Path, name: str) -> web.StreamResponse:
    file = await asyncio.to_thread(path.open, "rb")
    try:
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
    finally:
        await asyncio.to_thread(file.close)
    return response


async def _receive(request: web.Request, path: Path, most_bytes: int) -> None:
    """Raises: ApiError (413) if the body is longer."""
    if (request.content_length or 0) > most_bytes:
        raise too_large()
    received = 0
    file = await asyncio.to_thread(path.open, "xb")
    try:
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            received += len(chunk)
            if received > most_bytes:
                raise too_large()
            await asyncio.to_thread(file.write, chunk)
    finally:
        await asyncio.to_thread(file.close)
