"""Which protocol's shape an error has: that of its path, whoever answers there.

So refusals at the door, and paths that are none, are in the shape that the client of that protocol
reads. Does not know why an error came to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dovecote_http.anthropic.errors import error_payload

if TYPE_CHECKING:
    from aiohttp import web

    from dovecote_http.errors import ApiError

__all__ = ["shaped"]

_ANTHROPIC = "/messages"


def shaped(request: web.Request, error: ApiError) -> web.Response:
    """The error as a response to that request."""
    path = request.path.removeprefix("/v1")
    if path == _ANTHROPIC or path.startswith(f"{_ANTHROPIC}/"):
        return error.response(error_payload(error))
    return error.response()
