"""The application: routes, middlewares and the engine's life in it.

Does not know sockets or signals: `server.py` does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from dovecote_http import openapi
from dovecote_http.access.access import Access
from dovecote_http.access.cors import add_cors_headers, preflight
from dovecote_http.access.guard import guard
from dovecote_http.access.intake import BodyRoom
from dovecote_http.agents import agents, cache_probe
from dovecote_http.answers import cancellation
from dovecote_http.answers.running import RunningRequests
from dovecote_http.anthropic import messages
from dovecote_http.bridge.pressure import PoolPressure
from dovecote_http.bridge.surveys import Surveys
from dovecote_http.bridge.swaps import ModelSwaps
from dovecote_http.keys import (
    ACCESS,
    BODY_ROOM,
    BRIDGE,
    HISTORY,
    METRICS,
    PRESSURE,
    RESPONSES,
    RUNNING,
    SETTINGS,
    SURVEYS,
    SWAPS,
)
from dovecote_http.middlewares import add_standing_headers, expect, shape_errors, trace
from dovecote_http.openai import chat, completions, listing, tokenization
from dovecote_http.operators import admin, health, overview
from dovecote_http.operators.history import History, keep_sampling
from dovecote_http.operators.metrics import HttpMetrics
from dovecote_http.page import page
from dovecote_http.responses import answering
from dovecote_http.responses.memory import ResponseMemory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dovecote_http.bridge.bridge import EngineBridge
    from dovecote_http.bridge.swaps import Catalogue
    from dovecote_http.settings import HttpSettings


_WATCH_S = 1.0
"""How often the engine's current step is looked at."""

_READS = (
    ("/models", listing.models),
    ("/models/{id:.+}", listing.model),
    ("/health", health.ready),
    ("/health/live", health.live),
    ("/health/ready", health.ready),
    ("/health/startup", health.startup),
    ("/metrics", health.metrics),
    ("/openapi.json", openapi.describe),
)

_TOKENIZATION = (
    ("/tokenize", tokenization.tokenize),
    ("/detokenize", tokenization.detokenize),
    ("/apply-template", tokenization.apply_template),
)


def make_app(
    bridge: EngineBridge,
    settings: HttpSettings,
    access: Access | None = None,
    catalogue: Catalogue | None = None,
) -> web.Application:
    """The service. Its startup starts the engine, and its cleanup stops it.

    `catalogue`: the models that can be served in place of the first; None for no others.
    """
    app = web.Application(
        middlewares=[preflight, trace, shape_errors, guard],
        client_max_size=settings.max_body_bytes,
    )
    app[BRIDGE] = bridge
    app[SETTINGS] = settings
    app[ACCESS] = access or Access()
    app[BODY_ROOM] = BodyRoom(settings.max_body_bytes)
    app[METRICS] = HttpMetrics()
    app[SWAPS] = ModelSwaps(bridge, catalogue, app[METRICS].count_swap)
    app[PRESSURE] = PoolPressure()
    app[RESPONSES] = ResponseMemory()
    app[RUNNING] = RunningRequests()
    app[HISTORY] = History()
    app[SURVEYS] = Surveys(bridge)
    app.on_response_prepare.append(add_standing_headers)
    app.on_response_prepare.append(add_cors_headers)
    app.on_startup.append(page.load)
    app.cleanup_ctx.append(_run_engine)
    app.cleanup_ctx.append(_keep_history)
    app.add_routes(page.routes())
    for prefix in ("/v1", ""):  # users type their base URL with and without
        app.add_routes(_routes(prefix))
    return app


def _routes(prefix: str) -> list[web.RouteDef]:
    return [
        web.post(f"{prefix}/chat/completions", chat.chat_completions, expect_handler=expect),
        web.post(f"{prefix}/completions", completions.completions, expect_handler=expect),
        web.post(f"{prefix}/messages", messages.messages, expect_handler=expect),
        web.post(f"{prefix}/messages/count_tokens", messages.count_tokens, expect_handler=expect),
        web.post(f"{prefix}/responses", answering.create_response, expect_handler=expect),
        web.get(f"{prefix}/responses/{{id}}", answering.get_response, expect_handler=expect),
        web.delete(f"{prefix}/responses/{{id}}", answering.delete_response, expect_handler=expect),
        *(web.post(prefix + path, answer, expect_handler=expect) for path, answer in _TOKENIZATION),
        web.delete(f"{prefix}/requests/{{id}}", cancellation.cancel_request, expect_handler=expect),
        web.post(f"{prefix}/cache/probe", cache_probe.probe, expect_handler=expect),
        *agents.routes(prefix),
        *admin.routes(prefix),
        *overview.routes(prefix),
        *(web.get(prefix + path, answer, expect_handler=expect) for path, answer in _READS),
    ]


async def _run_engine(app: web.Application) -> AsyncIterator[None]:
    await app[BRIDGE].start()
    watching = asyncio.create_task(_watch(app[BRIDGE], app[SETTINGS].stall_s))
    yield
    watching.cancel()
    await asyncio.wait((watching,))
    await app[BRIDGE].stop()


async def _keep_history(app: web.Application) -> AsyncIterator[None]:
    sampling = asyncio.create_task(keep_sampling(app[HISTORY], app[BRIDGE]))
    yield
    sampling.cancel()
    await asyncio.wait((sampling,))


async def _watch(bridge: EngineBridge, stall_s: float) -> None:
    while True:
        bridge.watch(stall_s)
        await asyncio.sleep(min(_WATCH_S, stall_s / 4))
