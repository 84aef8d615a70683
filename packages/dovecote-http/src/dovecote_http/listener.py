"""The listening socket in front of an application.

Answers what never becomes a request (a broken request line, a header too long) in the same error
shape as everything else. Does not know signals.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from dovecote_http.errors import ApiError, ErrorBody, internal
from dovecote_http.middlewares import SERVER_NAME, request_id

if TYPE_CHECKING:
    from typing import Self

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.http")

_LAST_BYTES_S = 2.0
"""How long connections may still write once the listener has closed."""


class Listener:
    """Serves an application on one address from `open` to `close`."""

    def __init__(self, app: web.Application) -> None:
        # Cancelling the handler of a client that has gone is what frees its row.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=_LAST_BYTES_S
        )
        self._server: asyncio.Server | None = None

    async def prepare(self) -> Self:
        """Runs the application's startup. Raises: what the startup raised."""
        await self._runner.setup()
        return self

    async def open(self, host: str, port: int) -> int:
        """Listens; returns the port, which is a free one if `port` is 0. Raises: OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening, ends the connections and runs the application's cleanup. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._runner.cleanup()

    def _protocol(self) -> _Protocol:
        server = self._runner.server
        assert server is not None, "prepare() comes before open()"  # noqa: S101
        # aiohttp takes None for "no access log", though its annotation does not say so.
        return _Protocol(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]


class _Protocol(web.RequestHandler):
    """aiohttp's connection handler, with this service's error shape."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - may quote a header, so it is not repeated
    ) -> web.StreamResponse:
        # The exception's text may quote a header as well: its type says enough.
        _log.warning("request_unreadable", status=status, reason=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a response has already begun")
        response = _unreadable(status, type(exc).__name__).response()
        response.headers["x-request-id"] = request_id(request)
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response


def _unreadable(status: int, reason: str) -> ApiError:
    if status >= 500:
        return internal()
    message = f"The request could not be read as HTTP ({reason})."
    return ApiError(status, ErrorBody(message, "invalid_request_error", None, "malformed_http"))
