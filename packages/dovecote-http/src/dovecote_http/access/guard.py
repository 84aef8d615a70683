"""Who gets in: decided from the head of a request, before any of its body is read.

    named as this server? -> a key that is known? -> a page that may? -> within its limits? -> body

Paths under /health answer everybody, since probes hold no keys, and so do the files of the page for
people, which hold no secrets: those requests are no tenant's. /metrics tells of all tenants, so it
takes an admin key where keys are asked for.

Does not know what requests ask for.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from dovecote_http.access.api_keys import presented_keys, tenant_for
from dovecote_http.access.cors import is_foreign_page
from dovecote_http.access.intake import read_body
from dovecote_http.access.tenants import OPERATOR, Tenant
from dovecote_http.errors import admin_only, forbidden, invalid_key
from dovecote_http.keys import ACCESS, ALLOWANCE, BODY_ROOM, SETTINGS, TENANT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dovecote_http.access.access import Access

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["guard", "route_of"]

_OPEN = frozenset({
    "/", "/web/{name}", "/health", "/health/live", "/health/ready", "/health/startup"
})  # fmt: skip
_ADMIN = frozenset({"/metrics"})
_STREAMED = frozenset({"/agents/archive"})
"""Their handlers read the body themselves, since it may be larger than one that is held."""

_SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets a request in as its tenant's, its body read. Raises: ApiError."""
    route = route_of(request)
    if route in _OPEN:
        return await handler(request)
    access = request.app[ACCESS]
    _check_host(access, request)
    tenant = _tenant(access, request)
    if route in _ADMIN and not tenant.is_admin:
        raise admin_only()
    request[TENANT] = tenant
    if request.method == hdrs.METH_POST:  # what costs something
        _count(access, request, tenant)
    if not request.can_read_body or route in _STREAMED:
        return await handler(request)
    with request.app[BODY_ROOM].share() as share:
        await read_body(request, request.app[SETTINGS], share)
        return await handler(request)


def route_of(request: web.Request) -> str:
    """The pattern of the request's path without /v1; "unmatched" where there is none."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical.removeprefix("/v1")


def _tenant(access: Access, request: web.Request) -> Tenant:
    """Raises: ApiError (401, 403)."""
    if access.keys is not None:
        key = access.keys.find(presented_keys(request.headers))
        if key is None:
            raise invalid_key()
        return tenant_for(key, shares_prefixes=access.shares_prefixes)
    # A page needs nobody's leave to send a simple request, and no answer for it to take effect.
    if request.method not in _SAFE_METHODS and is_foreign_page(request):
        raise forbidden(
            "Pages of this origin may not call this server; --cors-origin allows it.",
            "origin_not_allowed",
        )
    return OPERATOR


def _check_host(access: Access, request: web.Request) -> None:
    """Raises: ApiError (403)."""
    if access.hosts is None or access.keys is not None:
        return
    name = _host_name(request.headers.get(hdrs.HOST, ""))
    if not (name in access.hosts or name in ("", "localhost") or name.endswith(".localhost")):
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise forbidden(
                "This server is not called by that name; --allowed-host allows it.",
                "host_not_allowed",
            ) from None


def _host_name(host: str) -> str:
    """The name of a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def _count(access: Access, request: web.Request, tenant: Tenant) -> None:
    """Raises: ApiError (429)."""
    caller = tenant.name or "" if access.keys is not None else _network(request.remote)
    allowance = access.limits.of(caller)
    request[ALLOWANCE] = allowance
    allowance.take_request()


def _network(address: str | None) -> str:
    """What one client can come from: its address, of IPv6 the first half."""
    try:
        ip = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
