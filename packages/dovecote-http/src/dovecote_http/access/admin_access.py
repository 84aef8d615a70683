"""Who may make administrative calls.

    API keys are asked for   an admin key, from wherever
    they are not             who is on this machine: from a loopback address, and no web page

A page in the operator's own browser comes from loopback too, and so does all the world through a
reverse proxy on this machine: browsers say so in `Origin` or `Sec-Fetch-Site`, proxies in
`X-Forwarded-For` and its like.

Does not know what the calls do.
"""

from __future__ import annotations

from functools import wraps
from ipaddress import ip_address
from typing import TYPE_CHECKING

from dovecote_http.access.api_keys import is_admin
from dovecote_http.errors import ApiError, ErrorBody
from dovecote_http.keys import ACCESS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["admins_only"]

_RELAYED = ("Origin", "Sec-Fetch-Site", "Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


def admins_only(handler: Handler) -> Handler:
    """The handler, for those who may. Others get 403."""

    @wraps(handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        if not is_admin(request):
            raise _forbidden("This call needs an admin key.", "admin_key_required")
        if request.app[ACCESS].keys is None and not _is_local(request):
            raise _forbidden(
                "Without API keys, administrative calls are answered on this machine alone.",
                "not_local",
            )
        return await handler(request)

    return guarded


def _is_local(request: web.Request) -> bool:
    if any(name in request.headers for name in _RELAYED):
        return False
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return ip_address(peer[0].partition("%")[0]).is_loopback
    return peer is not None  # a Unix socket: whoever may open its file


def _forbidden(message: str, code: str) -> ApiError:
    return ApiError(403, ErrorBody(message, "permission_error", None, code))
