"""GET /health/live, /health/ready (also /health) and /metrics: what operators' tools ask.

Live means that waiting may help; ready, that a request sent now would be taken.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from dovecote_http.bridge import EngineStopped
from dovecote_http.errors import unavailable
from dovecote_http.keys import BRIDGE, METRICS, PRESSURE, SETTINGS

if TYPE_CHECKING:
    from dovecote_http.engine_like import StatusLike

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def live(request: web.Request) -> web.Response:
    """200 while there is an engine, or another one is being made. 503 asks for a restart."""
    if not request.app[BRIDGE].health.hopeful:
        raise unavailable("The engine is not running.", "engine_stopped")
    return web.json_response({"status": "alive"})


async def ready(request: web.Request) -> web.Response:
    """200 while new work is taken. 503 while draining, stalled, crowded or without an engine."""
    bridge = request.app[BRIDGE]
    health = bridge.health
    if health.draining:
        raise unavailable("The server is shutting down.", "draining")
    if health.step_age_s > request.app[SETTINGS].stall_s:
        raise unavailable("The engine's current step takes too long.", "engine_stalled")
    if not health.alive:
        raise unavailable("The engine is not running.", "engine_stopped")
    if request.app[PRESSURE].update((await bridge.status()).pool):
        raise unavailable("Nearly all of the cache is in active use.", "pool_pressure")
    return web.json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    """All metrics in the Prometheus text format, also while there is no engine."""
    status = await _status(request)
    text = await asyncio.to_thread(request.app[METRICS].render, status)
    return web.Response(body=text, headers={"Content-Type": _METRICS_TYPE})


async def _status(request: web.Request) -> StatusLike | None:
    try:
        return await request.app[BRIDGE].status()
    except EngineStopped:
        return None
