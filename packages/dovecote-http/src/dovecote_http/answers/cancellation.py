"""DELETE /v1/requests/{id}: ends what runs under an id that its caller knows.

The id is the completion's own (`chatcmpl-...`) or the `x-request-id` of its response, which a
client may choose and so knows before any answer. Callers may give one `x-request-id` to several
requests: all of them end.

Does not know how the engine ends a request, nor what its caller is told.
"""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.access.api_keys import tenant_of
from dovecote_http.errors import request_not_found
from dovecote_http.keys import BRIDGE, RUNNING


class CancelledRequest(Struct, frozen=True):
    """One request that ends: what it was doing."""

    id: str
    phase: str


class Cancellation(Struct, frozen=True):
    """What a cancel did."""

    id: str
    object: str
    cancelled: list[CancelledRequest]


async def cancel_request(request: web.Request) -> web.Response:
    """Ends every request of that id; 404 where there is none."""
    name = request.match_info["id"]
    found = request.app[RUNNING].find(name, tenant_of(request))
    if not found:
        raise request_not_found(name)
    cancelled = []
    for entry in found:
        entry.is_cancelled = True
        phases = [request.app[BRIDGE].cancel(name) for name in entry.engine_ids]
        # None of them in the engine yet: who submits them looks at the entry.
        phase = next((phase for phase in reversed(phases) if phase), "arriving")
        cancelled.append(CancelledRequest(entry.completion_id, phase))
    body = Cancellation(name, "request.cancellation", cancelled)
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
