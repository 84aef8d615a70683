"""The listening socket in front of an application.

Does not know signals.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from dovecote_http.access.connections import Connection, Connections
from dovecote_http.keys import SETTINGS

if TYPE_CHECKING:
    from typing import Self

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
        self._connections = Connections(app[SETTINGS])

    async def prepare(self) -> Self:
        """Runs the application's startup. Raises: what the startup raised."""
        await self._runner.setup()
        return self

    async def open(self, host: str, port: int) -> int:
        """Listens; returns the port, which is a free one if `port` is 0. Raises: OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening, ends the connections and runs the application's cleanup. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._runner.cleanup()

    def _connection(self) -> Connection:
        server = self._runner.server
        assert server is not None, "prepare() comes before open()"  # noqa: S101
        return Connection(server, self._connections)
