"""GET /health/live, /ready (also /health), /startup and /metrics: what operators' tools ask.

Live means that waiting may help; ready, that a request sent now would be taken; started, that a
model has been loaded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from dovecote_http.bridge.bridge import EngineStopped
from dovecote_http.bridge.door import DoorClosed
from dovecote_http.errors import unavailable
from dovecote_http.keys import BRIDGE, METRICS, PRESSURE, SETTINGS

if TYPE_CHECKING:
    from dovecote_http.bridge.engine_like import StatusLike

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def live(request: web.Request) -> web.Response:
    """200 while there is an engine, or another one is being made. 503 asks for a restart."""
    if not request.app[BRIDGE].health.hopeful:
        raise unavailable("The engine is not running.", "engine_stopped")
    return web.json_response({"status": "alive"})


async def startup(request: web.Request) -> web.Response:
    """200 once there has been an engine, whatever became of it."""
    if request.app[BRIDGE].health.state == "loading" and not request.app[BRIDGE].load_s:
        raise unavailable("The model is being loaded.", "loading")
    return web.json_response({"status": "started"})


async def ready(request: web.Request) -> web.Response:
    """200 while new work is taken. 503 while drained, swapped, stalled, crowded, or engineless."""
    bridge = request.app[BRIDGE]
    health = bridge.health
    if health.draining:
        raise unavailable("The server is shutting down.", "draining")
    if health.closure is not None:
        closure = health.closure
        raise unavailable(closure.message, closure.code, closure.retry_after_s)
    if health.step_age_s > request.app[SETTINGS].stall_s:
        raise unavailable("The engine's current step takes too long.", "engine_stalled")
    if not health.alive:
        raise unavailable("The engine is not running.", "engine_stopped")
    if request.app[PRESSURE].update((await bridge.status()).pool):
        raise unavailable("Nearly all of the cache is in active use.", "pool_pressure")
    return web.json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    """All metrics in the Prometheus text format, also while there is no engine."""
    status, health = await _status(request), request.app[BRIDGE].health
    is_accepting = health.alive and not health.draining and health.closure is None
    text = await asyncio.to_thread(request.app[METRICS].render, status, int(is_accepting))
    return web.Response(body=text, headers={"Content-Type": _METRICS_TYPE})


async def _status(request: web.Request) -> StatusLike | None:
    try:
        return await request.app[BRIDGE].status()
    except (EngineStopped, DoorClosed):
        return None
