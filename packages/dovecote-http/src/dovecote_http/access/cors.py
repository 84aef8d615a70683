"""What web pages may do here: the answers to preflights, and the headers that let pages read.

    any response --add_cors_headers--> the same, readable by pages of the origins that are allowed
    OPTIONS      --preflight---------> 204, without a key: browsers send none

Outermost, so that a page can read refusals and streams as well. A named origin may also send what
the browser keeps for this server (a proxy's cookies); all origins together ("*") may not.

Does not know keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from dovecote_http.keys import ACCESS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["add_cors_headers", "is_foreign_page", "preflight"]

_METHODS = "GET, POST, PATCH, PUT, DELETE, OPTIONS"
_REQUEST_HEADERS = "Authorization, Content-Type, x-api-key, x-request-id"
_EXPOSED = (
    "x-request-id, Retry-After, retry-after-ms, Server-Timing, X-Dovecote-Cache, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    "x-should-retry, WWW-Authenticate, Content-Disposition"
)
_PREFLIGHT_S = "600"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_,\- ]{1,2048}")


@web.middleware
async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers OPTIONS on every path; what else there is goes on."""
    if request.method != hdrs.METH_OPTIONS:
        return await handler(request)
    response = web.Response(status=204)
    if _allowed_origin(request) is not None:
        asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
        headers = asked if _HEADER_NAMES.fullmatch(asked) else _REQUEST_HEADERS
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = headers
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = _PREFLIGHT_S
        if request.headers.get("Access-Control-Request-Private-Network") == "true":
            response.headers["Access-Control-Allow-Private-Network"] = "true"
    return response


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Lets pages of allowed origins read the response (a signal, so that streams have it too)."""
    if not request.app[ACCESS].origins:
        return
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = _allowed_origin(request)
    if origin is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
        if origin != "*":
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"


def is_foreign_page(request: web.Request) -> bool:
    """Whether a web page sends this that is neither this server's own nor of an allowed origin."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or _allowed_origin(request) is not None:
        return False
    return origin.lower().partition("://")[2] != request.headers.get(hdrs.HOST, "").lower()


def _allowed_origin(request: web.Request) -> str | None:
    """What stands in Access-Control-Allow-Origin, None for nothing."""
    origins, origin = request.app[ACCESS].origins, request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return None
    if origin in origins and origin != "*":
        return origin
    return "*" if "*" in origins else None
