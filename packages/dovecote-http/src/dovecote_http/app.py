"""The application: routes, middlewares and the engine's life in it.

Does not know sockets or signals: `server.py` does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from dovecote_http import agents, cancellation, chat, completions, health, listing
from dovecote_http.keys import BRIDGE, METRICS, PRESSURE, RUNNING, SETTINGS
from dovecote_http.metrics import HttpMetrics
from dovecote_http.middlewares import add_standing_headers, expect, shape_errors, trace
from dovecote_http.pressure import PoolPressure
from dovecote_http.running import RunningRequests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dovecote_http.bridge import EngineBridge
    from dovecote_http.settings import HttpSettings


_WATCH_S = 1.0
"""How often the engine's current step is looked at."""

_READS = (
    ("/models", listing.models),
    ("/models/{id:.+}", listing.model),
    ("/health", health.ready),
    ("/health/live", health.live),
    ("/health/ready", health.ready),
    ("/metrics", health.metrics),
)


def make_app(bridge: EngineBridge, settings: HttpSettings) -> web.Application:
    """The service. Its startup starts the engine, and its cleanup stops it."""
    app = web.Application(
        middlewares=[trace, shape_errors], client_max_size=settings.max_body_bytes
    )
    app[BRIDGE] = bridge
    app[SETTINGS] = settings
    app[METRICS] = HttpMetrics()
    app[PRESSURE] = PoolPressure()
    app[RUNNING] = RunningRequests()
    app.on_response_prepare.append(add_standing_headers)
    app.cleanup_ctx.append(_run_engine)
    for prefix in ("/v1", ""):  # users type their base URL with and without
        app.add_routes(_routes(prefix))
    return app


def _routes(prefix: str) -> list[web.RouteDef]:
    return [
        web.post(f"{prefix}/chat/completions", chat.chat_completions, expect_handler=expect),
        web.post(f"{prefix}/completions", completions.completions, expect_handler=expect),
        web.delete(f"{prefix}/requests/{{id}}", cancellation.cancel_request, expect_handler=expect),
        *agents.routes(prefix),
        *(web.get(prefix + path, answer, expect_handler=expect) for path, answer in _READS),
    ]


async def _run_engine(app: web.Application) -> AsyncIterator[None]:
    await app[BRIDGE].start()
    watching = asyncio.create_task(_watch(app[BRIDGE], app[SETTINGS].stall_s))
    yield
    watching.cancel()
    await asyncio.wait((watching,))
    await app[BRIDGE].stop()


async def _watch(bridge: EngineBridge, stall_s: float) -> None:
    while True:
        bridge.watch(stall_s)
        await asyncio.sleep(min(_WATCH_S, stall_s / 4))
