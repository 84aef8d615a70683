"""The connections of a listener: how many there are, and what each may keep waiting for.

    made --head within receive_timeout_s--> a request --answer taken--> idle --idle_timeout_s--> end
      `--not so: 408                            `--not for send_timeout_s: cut off

Beyond `max_connections` the connection that has been idle longest makes room for a new one; where
none is idle, the new one is told 503. Answers what never becomes a request (a broken request line,
a header too long) in the same error shape as everything else.

Does not know routes.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, cast

import structlog
from aiohttp import web

from dovecote_http.errors import (
    ApiError,
    ErrorBody,
    connections_exhausted,
    internal,
    receive_timed_out,
)
from dovecote_http.middlewares import SERVER_NAME, request_id

if TYPE_CHECKING:
    from dovecote_http.settings import HttpSettings

__all__ = ["Connection", "Connections"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.http")


class Connections:
    """The open connections of one listener. Event loop only.

    In the order of their last whole head: one that trickles its bytes in does not stay young by it.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._open: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more; an idle one is closed for it if need be."""
        if len(self._open) >= self.settings.max_connections:
            idle = next((each for each in self._open if each.is_idle), None)
            if idle is None:
                return False
            self.forget(idle)
            idle.force_close()
        self._open[connection] = None
        return True

    def note_use(self, connection: Connection) -> None:
        """The connection is the last now to be closed for another."""
        if connection in self._open:
            self._open[connection] = self._open.pop(connection)

    def forget(self, connection: Connection) -> None:
        """The connection is no longer there."""
        self._open.pop(connection, None)


class Connection(web.RequestHandler):
    """aiohttp's handler of a connection, with bounds on its client's patience and ours."""

    __slots__ = ("_connections", "_receiving", "_sending")

    def __init__(self, server: web.Server, connections: Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=connections.settings.idle_timeout_s,
            # aiohttp takes None for "no access log", though its annotation does not say so.
            access_log=None,  # type: ignore[arg-type]
        )
        self._connections = connections
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Between requests, or before the whole head of the first."""
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connections.admit(self):
            super().connection_made(transport)
            self._expect_head()
        else:
            _log.warning("connection_refused", connections=len(self._connections))
            refused = cast("asyncio.Transport", transport)
            refused.write(_raw(connections_exhausted()))
            refused.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.forget(self)
        self._head_came()
        self._answer_moves()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            return
        super().data_received(data)
        if self.is_idle and not self._messages:
            self._expect_head()
        else:
            self._connections.note_use(self)
            self._head_came()

    def pause_writing(self) -> None:
        super().pause_writing()
        limit_s = self._connections.settings.send_timeout_s
        self._sending = self._loop.call_later(limit_s, self._give_up_sending)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answer_moves()

    def _expect_head(self) -> None:
        if self._receiving is None:
            limit_s = self._connections.settings.receive_timeout_s
            self._receiving = self._loop.call_later(limit_s, self._give_up_receiving)

    def _head_came(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _answer_moves(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _give_up_receiving(self) -> None:
        self._receiving = None
        if self.transport is not None and not self._request_in_progress:
            self.transport.write(_raw(receive_timed_out()))
            self.force_close()

    def _give_up_sending(self) -> None:
        """The client does not read: what waits for it is dropped, and its request with it."""
        _log.warning("client_does_not_read")
        self._sending = None
        if self.transport is not None:
            self.transport.abort()

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


def _raw(error: ApiError) -> bytes:
    """The whole response, for a client of whom there is no request to answer."""
    response = error.response()
    headers = {
        **response.headers,
        "Content-Length": str(len(error.payload)),
        "Server": SERVER_NAME,
        "x-request-id": f"req_{uuid.uuid4().hex}",
        "Connection": "close",
    }
    lines = (f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {response.status} {response.reason}\r\n{''.join(lines)}\r\n"
    return head.encode() + error.payload
