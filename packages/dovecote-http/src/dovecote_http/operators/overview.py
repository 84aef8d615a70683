"""GET /v1/overview, and as a stream: the pool, the agents and the last minutes at one glance.

A run is a row of blocks that the same agents hold; `owners` are places in `agents`. Blocks that
belong to no run are those of requests without an agent, and of agents that are not told: those of
other tenants, and all but the `_MOST_AGENTS` that were used last.

Does not know how it is drawn, nor how often the engine is asked.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.answers.sse import SseStream
from dovecote_http.bridge.surveys import FRESH_S
from dovecote_http.keys import BRIDGE, HISTORY, STREAM, SURVEYS, TENANT
from dovecote_http.middlewares import expect
from dovecote_http.operators.history import KEPT_SLOTS, SLOT_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.agents.agent import AgentView
    from dovecote_engine.agents.runs import Run
    from dovecote_http.access.tenants import Tenant
    from dovecote_http.bridge.engine_like import PoolStatsLike
    from dovecote_http.bridge.surveys import Survey
    from dovecote_http.operators.history import Slot

__all__ = ["routes"]

_MOST_AGENTS = 200


class PoolBody(Struct, frozen=True):
    """Frames by state: leased + cached + free = frames. Bytes of one frame and of the file."""

    frames: int
    leased: int
    cached: int
    free: int
    pinned: int
    promised: int
    frame_bytes: int
    file_bytes: int
    tokens: int


class AgentLine(Struct, frozen=True):
    """What one sees of an agent at a glance; times are unix seconds, bytes those in the pool."""

    id: str
    tokens: int
    cached_tokens: int
    own_bytes: int
    shared_bytes: int
    last_used: float
    uses: int
    hit_tokens: int
    pinned: bool
    expires: float | None
    forked_from: str | None
    busy: bool


class RunBody(Struct, frozen=True):
    """So many blocks in a row, held by exactly these agents."""

    blocks: int
    owners: list[int]


class HistoryBody(Struct, frozen=True):
    """Slots of `slot_s` seconds, the oldest first, at most `kept_slots`."""

    slot_s: float
    kept_slots: int
    tokens_per_s: list[float]
    prefilled_per_s: list[float]
    cached_per_s: list[float]
    running: list[int]
    waiting: list[int]
    first_token_s: list[float | None]


class OverviewBody(Struct, frozen=True):
    """`pool` and `model` are null while there is no engine; `state` then says why.

    Who has no admin key is told of the own agents only: pool, queue and history are null.
    """

    object: str
    time: float
    state: str
    draining: bool
    model: str | None
    context_tokens: int | None
    running: int | None
    waiting: int | None
    waiting_tokens: int | None
    pool: PoolBody | None
    agents: list[AgentLine]
    agents_total: int
    runs: list[RunBody]
    history: HistoryBody | None


async def overview(request: web.Request) -> web.Response:
    """The overview, once."""
    return web.Response(body=await _payload(request), content_type="application/json")


async def stream(request: web.Request) -> web.StreamResponse:
    """The overview every second, as events, until the server drains or the reader goes."""
    sse = request[STREAM] = SseStream(request)
    await sse.open({})
    while True:
        await sse.send(await _payload(request))
        if request.app[BRIDGE].health.draining:
            break
        await asyncio.sleep(FRESH_S)
    await sse.response.write_eof()
    return sse.response


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this module under the prefix."""
    return [
        web.get(f"{prefix}/overview", overview, expect_handler=expect),
        web.get(f"{prefix}/overview/stream", stream, expect_handler=expect),
    ]


async def _payload(request: web.Request) -> bytes:
    survey = await request.app[SURVEYS].last()
    return msgspec.json.encode(_body(request.app, survey, request[TENANT]))


def _body(app: web.Application, survey: Survey | None, tenant: Tenant) -> OverviewBody:
    health = app[BRIDGE].health
    model = app[BRIDGE].model if survey and health.alive else None
    agents = survey.agents if survey else ()
    own = [agent for agent in agents if agent.name.startswith(tenant.scope)]
    told = own[:_MOST_AGENTS]
    status = survey.status if survey and tenant.is_admin else None
    return OverviewBody(
        object="overview",
        time=round(time.time(), 3),
        state=health.state,
        draining=health.draining,
        model=model.id if model else None,
        context_tokens=model.context_tokens if model else None,
        running=status.running if status else None,
        waiting=status.waiting if status else None,
        waiting_tokens=status.waiting_tokens if status else None,
        pool=_pool_body(status.pool) if status else None,
        agents=[_line(agent, tenant.scope) for agent in told],
        agents_total=len(own),
        runs=_run_bodies(survey.runs, told) if survey else [],
        history=_history_body(app[HISTORY].slots) if tenant.is_admin else None,
    )


def _line(agent: AgentView, scope: str) -> AgentLine:
    parent = agent.forked_from or ""
    return AgentLine(
        id=agent.name.removeprefix(scope),
        tokens=agent.tokens,
        cached_tokens=agent.cached_tokens,
        own_bytes=agent.own_bytes,
        shared_bytes=agent.shared_bytes,
        last_used=round(agent.last_used, 1),
        uses=agent.uses,
        hit_tokens=agent.hit_tokens,
        pinned=agent.pinned,
        expires=agent.expires,
        forked_from=parent.removeprefix(scope) if parent.startswith(scope) and parent else None,
        busy=agent.busy,
    )


def _pool_body(pool: PoolStatsLike) -> PoolBody:
    return PoolBody(**{name: getattr(pool, name) for name in PoolBody.__struct_fields__})


def _run_bodies(runs: Sequence[Run], told: Sequence[AgentView]) -> list[RunBody]:
    places = {agent.name: place for place, agent in enumerate(told)}
    bodies = [
        RunBody(run.blocks, [places[name] for name in run.owners if name in places]) for run in runs
    ]
    return [body for body in bodies if body.owners]


def _history_body(slots: Sequence[Slot]) -> HistoryBody:
    return HistoryBody(
        slot_s=SLOT_S,
        kept_slots=KEPT_SLOTS,
        tokens_per_s=[round(slot.tokens_per_s, 1) for slot in slots],
        prefilled_per_s=[round(slot.prefilled_per_s, 1) for slot in slots],
        cached_per_s=[round(slot.cached_per_s, 1) for slot in slots],
        running=[slot.running for slot in slots],
        waiting=[slot.waiting for slot in slots],
        first_token_s=[_rounded(slot.first_token_s) for slot in slots],
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
