"""Every error as a client sees it: `{"error": {message, type, param, code}}` and a status.

    anything raised --as_api_error--> ApiError --> a JSON response, or an event in a stream

Does not know requests or handlers. No message repeats prompt text or tells internals.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from dovecote_engine.errors import (
    AgentBusy,
    AgentError,
    AgentExists,
    BadArchive,
    BadRequest,
    ContextExceeded,
    NothingCached,
    Overloaded,
    PinsExhausted,
    Refused,
    UnknownAgent,
)
from dovecote_http.bridge.bridge import EngineStopped
from dovecote_http.bridge.door import DoorClosed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dovecote_engine.request import Failed

_INVALID = "invalid_request_error"
_SERVER = "server_error"

_RETRY_S = 1.0
"""Retry-After where the engine gave none."""

_LONGEST_RETRY_S = 120.0
"""OpenAI's clients do not retry at all when told to wait longer."""


class ErrorBody(msgspec.Struct, frozen=True):
    """The inner object of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ApiError(Exception):
    """An answer that is not a success. `retry_after_s` None: no Retry-After header."""

    def __init__(
        self,
        status: int,
        body: ErrorBody,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body.message)
        self.status = status
        self.body = body
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers.update(_retry_headers(retry_after_s))

    @property
    def payload(self) -> bytes:
        """The JSON of the whole body."""
        return msgspec.json.encode({"error": self.body})

    def response(self, payload: bytes | None = None) -> web.Response:
        """The error as a response of its own; `payload` in place of OpenAI's body."""
        return web.Response(
            status=self.status,
            body=self.payload if payload is None else payload,
            headers=self.headers,
            content_type="application/json",
        )


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    """A 400: the caller must change `param`."""
    return ApiError(400, ErrorBody(message, _INVALID, param, code))


def model_not_found(asked: str, served: str) -> ApiError:
    """A 404 for a model that is not the served one."""
    message = f"The model '{asked}' does not exist. This server serves '{served}'."
    return ApiError(404, ErrorBody(message, _INVALID, "model", "model_not_found"))


def request_not_found(asked: str) -> ApiError:
    """A 404 for an id under which nothing runs."""
    message = f"No request of the id '{asked}' is running."
    return ApiError(404, ErrorBody(message, _INVALID, "id", "request_not_found"))


def response_not_found(asked: str) -> ApiError:
    """A 404 for a response that is not remembered."""
    message = f"Response with id '{asked}' not found."
    return ApiError(404, ErrorBody(message, _INVALID, "id", "response_not_found"))


def cancelled() -> ApiError:
    """A 499: somebody asked for the end of this request, so its client is not to send it again."""
    body = ErrorBody("The request was cancelled.", _INVALID, None, "cancelled")
    return ApiError(499, body, headers={"x-should-retry": "false"})


def unavailable(message: str, code: str, retry_after_s: float = _RETRY_S) -> ApiError:
    """A 503: the same request may succeed later."""
    return ApiError(503, ErrorBody(message, _SERVER, None, code), retry_after_s=retry_after_s)


def generation_failed(failed: Failed) -> ApiError:
    """A 500: the engine gave this request up and told why; 429 if it only waited too long."""
    if failed.retry_after_s is not None:
        body = ErrorBody(failed.message, "rate_limit_error", None, "queue_timeout")
        return ApiError(429, body, retry_after_s=failed.retry_after_s)
    return ApiError(500, ErrorBody(failed.message, _SERVER, None, "generation_failed"))


def timed_out(limit_s: float) -> ApiError:
    """A 504. A client that retried would only wait as long again, so it is told not to."""
    message = f"The request took longer than {limit_s:g} seconds."
    body = ErrorBody(message, _SERVER, None, "request_timeout")
    return ApiError(504, body, headers={"x-should-retry": "false"})


def too_large() -> ApiError:
    """A 413: longer than anything that could be used."""
    body = ErrorBody("The request body is too large.", _INVALID, None, "request_too_large")
    return ApiError(413, body)


def receive_timed_out() -> ApiError:
    """A 408: what the client began to send does not come."""
    body = ErrorBody("The request did not arrive in time.", _INVALID, None, "receive_timeout")
    return ApiError(408, body, headers={"x-should-retry": "false", "Connection": "close"})


def bodies_overloaded() -> ApiError:
    """A 429: other clients' bodies take all the memory that bodies may take."""
    message = "The server is receiving too much at once."
    body = ErrorBody(message, "rate_limit_error", None, "overloaded")
    return ApiError(429, body, retry_after_s=_RETRY_S)


def connections_exhausted() -> ApiError:
    """A 503: every connection that there may be is in use."""
    return unavailable("The server has too many connections.", "connections_exhausted")


def invalid_key() -> ApiError:
    """A 401: no key, or none that is known."""
    message = (
        "Incorrect API key provided. Send one as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
    )
    body = ErrorBody(message, _INVALID, None, "invalid_api_key")
    return ApiError(401, body, headers={"WWW-Authenticate": 'Bearer realm="dovecote"'})


def forbidden(message: str, code: str) -> ApiError:
    """A 403: asking again changes nothing."""
    return ApiError(403, ErrorBody(message, _INVALID, None, code))


def admin_only() -> ApiError:
    """A 403 for who has a key, but not an admin's."""
    return forbidden("This needs an admin key.", "admin_only")


def internal() -> ApiError:
    """A 500 that tells nothing but its existence; the log has the rest."""
    message = "The server had an error while processing your request."
    return ApiError(500, ErrorBody(message, _SERVER, None, "internal_error"))


def as_api_error(error: Exception) -> ApiError | None:
    """What a client may be told of `error`; None where it is a defect of this server."""
    match error:
        case ApiError():
            return error
        case BadRequest():
            too_long = isinstance(error, ContextExceeded)
            return invalid(str(error), error.field, "context_length_exceeded" if too_long else None)
        case Refused() | AgentError():
            return _refusal(error) if isinstance(error, Refused) else _agent_error(error)
        case EngineStopped() | DoorClosed():
            return _no_engine(error)
        case web.HTTPException() | web.RequestPayloadError():
            return _http_error(error)
    return None


_AGENT_ERRORS: tuple[tuple[type[AgentError], int, str | None, str], ...] = (
    (UnknownAgent, 404, "name", "agent_not_found"),
    (AgentExists, 409, "name", "agent_exists"),
    (AgentBusy, 409, None, "agent_busy"),
    (PinsExhausted, 409, "pinned", "pins_exhausted"),
    (NothingCached, 409, None, "nothing_cached"),
)


def _agent_error(error: AgentError) -> ApiError:
    for kind, status, param, code in _AGENT_ERRORS:
        if isinstance(error, kind):
            return ApiError(status, ErrorBody(str(error), _INVALID, param, code))
    code = error.code if isinstance(error, BadArchive) else "agent_error"
    return ApiError(400, ErrorBody(str(error), _INVALID, None, code))


def _no_engine(error: EngineStopped | DoorClosed) -> ApiError:
    if isinstance(error, EngineStopped):
        return unavailable("The engine is not running.", "engine_stopped")
    closure = error.closure
    return unavailable(closure.message, closure.code, closure.retry_after_s)


def _refusal(error: Refused) -> ApiError:
    if isinstance(error, Overloaded):
        body = ErrorBody(str(error), "rate_limit_error", None, "overloaded")
        return ApiError(429, body, retry_after_s=error.retry_after_s)
    return unavailable(str(error), "draining", error.retry_after_s)


def _http_error(error: web.HTTPException | web.RequestPayloadError) -> ApiError:
    if isinstance(error, web.RequestPayloadError):
        return invalid("The body does not match its Content- or Transfer-Encoding.", None)
    kept = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    match error:
        case web.HTTPNotFound():
            body = ErrorBody("There is nothing at this URL.", _INVALID, None, "unknown_url")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{error.method} is not allowed here; allowed: {allowed}."
            body = ErrorBody(message, _INVALID, None, "method_not_allowed")
        case web.HTTPRequestEntityTooLarge():
            return too_large()
        case _:
            body = ErrorBody(error.reason, _INVALID, None, None)
    return ApiError(error.status, body, headers=kept)


def _retry_headers(retry_after_s: float) -> dict[str, str]:
    wait_s = min(max(retry_after_s, 0.0), _LONGEST_RETRY_S)
    return {
        "Retry-After": str(max(1, math.ceil(wait_s))),
        "retry-after-ms": str(math.ceil(wait_s * 1000)),
    }
