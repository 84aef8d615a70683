"""Errors as Anthropic's clients know them: `{"type": "error", "error": {"type", "message"}}`.

The status of an error is the same in every protocol. Does not know requests or handlers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from dovecote_http.errors import ApiError

__all__ = ["error_payload"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_payload(error: ApiError) -> bytes:
    """The JSON of the whole body."""
    fallback = "invalid_request_error" if 400 <= error.status < 499 else "api_error"
    kind = _TYPES.get(error.status, fallback)
    shape = {"type": "error", "error": {"type": kind, "message": str(error)}}
    return msgspec.json.encode(shape)
