"""What every request goes through: a request id, one log line, one count, and the error shape.

    preflight -> trace (id, log, count) -> shape_errors (the one door for errors)
              -> guard (who gets in) -> handler

Never logs a body, a query or a header other than the request id.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from typing import TYPE_CHECKING

import structlog
from aiohttp import HttpVersion11, web
from structlog.contextvars import bound_contextvars

from dovecote_http.access.guard import route_of
from dovecote_http.answers.sse import CLIENT_GONE, SseStream
from dovecote_http.error_shapes import shaped
from dovecote_http.errors import ApiError, ErrorBody, as_api_error, internal
from dovecote_http.keys import ALLOWANCE, METRICS, REQUEST_ID, STREAM, TENANT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.http")

SERVER_NAME = "dovecote"
"""Without it aiohttp tells its own version and Python's."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives the request its id, and logs and counts it once it is over."""
    request[REQUEST_ID] = request_id(request)
    began_s = time.monotonic()
    status = CLIENT_GONE
    with bound_contextvars(request_id=request[REQUEST_ID]):
        try:
            response = await handler(request)
            status = _outcome(request, response)
            return response
        finally:
            route = route_of(request)
            request.app[METRICS].count_request(route, status)
            elapsed_ms = round((time.monotonic() - began_s) * 1000, 1)
            _log.info(
                "request",
                method=request.method,
                route=route,
                status=status,
                ms=elapsed_ms,
                **_tenant_field(request),
            )


@web.middleware
async def shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever is raised into the error shape: a response, or an event in an open stream."""
    try:
        return await handler(request)
    except ConnectionError:
        return _abandoned(request)
    except Exception as error:  # noqa: BLE001 - the HTTP door: logged with the request id
        told = as_api_error(error)
        if told is None:
            # In a thread, since rendering a traceback would block the event loop.
            await asyncio.to_thread(_log.error, "request_failed", exc_info=error)
            told = internal()
        return await _answer(request, told)


async def add_standing_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Puts on every response what all have (a signal, so that streams have it too)."""
    # Without an id where aiohttp answered before any middleware.
    response.headers["x-request-id"] = request.get(REQUEST_ID) or request_id(request)
    response.headers["Server"] = SERVER_NAME
    if ALLOWANCE in request:
        response.headers.update(request[ALLOWANCE].headers())


async def expect(request: web.Request) -> web.Response | None:
    """Answers the Expect header, which aiohttp looks at before any middleware."""
    if request.headers["Expect"].lower() != "100-continue":
        body = ErrorBody("Only 100-continue can be expected.", "invalid_request_error", None, None)
        return ApiError(417, body).response()
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # an interim response does not count
    return None


def request_id(request: web.BaseRequest) -> str:
    """The caller's own id if it is sane, otherwise a new one."""
    for name in ("X-Request-ID", "x-client-request-id"):
        given = request.headers.get(name, "")
        if _SANE_ID.fullmatch(given):
            return given
    return f"req_{uuid.uuid4().hex}"


async def _answer(request: web.Request, error: ApiError) -> web.StreamResponse:
    stream: SseStream | None = request.get(STREAM)
    if stream is None or not stream.is_open:
        return shaped(request, error)
    await stream.fail(error)
    return stream.response


def _abandoned(request: web.Request) -> web.StreamResponse:
    """A write found the client gone. Nothing can be sent; aiohttp closes the connection."""
    stream: SseStream | None = request.get(STREAM)
    if stream is None:
        return internal().response()
    stream.outcome = CLIENT_GONE
    return stream.response


def _outcome(request: web.Request, response: web.StreamResponse) -> int:
    stream: SseStream | None = request.get(STREAM)
    if stream is not None and response is stream.response:
        return stream.outcome
    return response.status


def _tenant_field(request: web.Request) -> dict[str, str]:
    tenant = request.get(TENANT)
    return {} if tenant is None or tenant.name is None else {"tenant": tenant.name}
