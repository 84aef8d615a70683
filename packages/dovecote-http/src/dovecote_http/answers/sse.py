"""Server-sent events over one response: its headers, framing, keep-alive and end.

    closed --open--> open --(send | write | comment)*--> --end or fail--> ended

A frame is the bytes of one or more whole events. Does not know what the events say, nor how the
protocol of an answer has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dovecote_http.errors import ApiError

__all__ = [
    "CLIENT_GONE",
    "COMMENT",
    "DONE",
    "SseStream",
    "data_frame",
    "event_frame",
    "failure_frame",
]

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would otherwise gather the events
}

CLIENT_GONE = 499
"""The status in logs and metrics of a request whose client left (nginx's number)."""


COMMENT = b": keep-alive\n\n"
"""A line that OpenAI's clients skip, and proxies take for a sign of life."""


def data_frame(payload: bytes) -> bytes:
    """The frame of an event without a name. `payload` has no line breaks."""
    return b"data: " + payload + b"\n\n"


def event_frame(name: str, payload: bytes) -> bytes:
    """The frame of a named event. `payload` has no line breaks."""
    return b"event: " + name.encode() + b"\n" + data_frame(payload)


def failure_frame(error: ApiError) -> bytes:
    """How OpenAI's clients are told of an error in a stream."""
    return data_frame(error.payload)


DONE = data_frame(b"[DONE]")
"""The end of a stream as OpenAI's clients expect it."""


class SseStream:
    """An event stream. Its methods write at the reader's pace: a full buffer makes them wait.

    `failure`: the frame that tells of an error.
    """

    def __init__(
        self, request: web.Request, failure: Callable[[ApiError], bytes] = failure_frame
    ) -> None:
        self._request = request
        self._failure = failure
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

    async def write(self, frames: bytes) -> None:
        """Sends whole frames; nothing for none."""
        if frames:
            await self.response.write(frames)

    async def send(self, payload: bytes) -> None:
        """Sends one event without a name."""
        await self.write(data_frame(payload))

    async def comment(self) -> None:
        """Sends a line that clients skip, and proxies take for a sign of life."""
        await self.write(COMMENT)

    async def end(self, frames: bytes = b"") -> None:
        """Ends the stream with those frames."""
        await self.write(frames)
        await self.response.write_eof()

    async def fail(self, error: ApiError) -> None:
        """Ends the stream with an error event. A client that has gone misses it."""
        self.outcome = error.status
        try:
            await self.end(self._failure(error))
        except ConnectionError:
            self.outcome = CLIENT_GONE
