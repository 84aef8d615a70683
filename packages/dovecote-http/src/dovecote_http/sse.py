"""Server-sent events over one response: its headers, framing, keep-alive and end.

    closed --open--> open --send*/comment*--> --done or fail--> ended

Does not know what the events say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dovecote_http.errors import ApiError

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would otherwise gather the events
}

CLIENT_GONE = 499
"""The status in logs and metrics of a request whose client left (nginx's number)."""


class SseStream:
    """An event stream. Its methods write at the reader's pace: a full buffer makes them wait."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(headers=_HEADERS)
        self.outcome = self.response.status
        """The status that tells how the stream ended, which its header could not know."""

    @property
    def is_open(self) -> bool:
        """The header has been sent, so the status can no longer change."""
        return self.response.prepared

    async def open(self, headers: Mapping[str, str]) -> None:
        """Sends the header, unless it has been sent: `headers` are then lost."""
        if not self.is_open:
            self.response.headers.update(headers)
            await self.response.prepare(self._request)

    async def send(self, payload: bytes) -> None:
        """Sends one event."""
        await self.response.write(b"data: " + payload + b"\n\n")

    async def comment(self) -> None:
        """Sends a line that clients skip, and proxies take for a sign of life."""
        await self.response.write(b": keep-alive\n\n")

    async def done(self) -> None:
        """Ends the stream as OpenAI's clients expect."""
        await self.send(b"[DONE]")
        await self.response.write_eof()

    async def fail(self, error: ApiError) -> None:
        """Ends the stream with an error event. A client that has gone misses it."""
        self.outcome = error.status
        try:
            await self.send(error.payload)
            await self.response.write_eof()
        except ConnectionError:
            self.outcome = CLIENT_GONE
