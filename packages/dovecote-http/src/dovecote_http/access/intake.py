"""How much of what clients send is held, and for how long a client may take to send it.

    body --read_body--> held from its first byte until its request is over

All bodies together take a bounded number of bytes, whoever sends them. A body has to keep coming: a
long one over a slow line arrives, while one that trickles does not hold its place for ever.

Does not know what a body says.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dovecote_http.errors import bodies_overloaded, receive_timed_out, timed_out, too_large

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aiohttp import web

    from dovecote_http.settings import HttpSettings

__all__ = ["BodyRoom", "read_body", "received"]

SLOWEST_BYTES_S = 16 * 2**10
"""So much has to come on average in every span of `receive_timeout_s`, or the body's end."""

_LARGEST_BODIES = 4
"""All bodies together may take as much as so many of the largest."""


class BodyRoom:
    """What all bodies together may take. Event loop only."""

    def __init__(self, max_body_bytes: int) -> None:
        self.capacity_bytes = _LARGEST_BODIES * max_body_bytes
        self._free_bytes = self.capacity_bytes

    @property
    def free_bytes(self) -> int:
        """What is left of the capacity."""
        return self._free_bytes

    @contextmanager
    def share(self) -> Iterator[BodyShare]:
        """A share that grows with one body, given back at the block's end."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self._free_bytes += share.taken_bytes

    def take(self, count: int) -> None:
        """Raises: ApiError (429) if there is not so much left; nothing is taken then."""
        if count > self._free_bytes:
            raise bodies_overloaded()
        self._free_bytes -= count


class BodyShare:
    """One body's part of the room."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self.taken_bytes = 0

    def grow(self, count: int) -> None:
        """Raises: ApiError (429), as `BodyRoom.take`."""
        self._room.take(count)
        self.taken_bytes += count


async def read_body(request: web.Request, settings: HttpSettings, share: BodyShare) -> None:
    """Reads the body, so that every later `request.read()` has it at once.

    Raises: ApiError: 413 if it is longer than a body may be, 408 if it does not keep coming, 429 if
    there is no room for it, 504 if it takes longer than a whole request may.
    """
    limit_s = settings.request_timeout_s
    body = bytearray()
    try:
        async with asyncio.timeout(limit_s):
            async for chunk in received(request, settings.max_body_bytes, settings):
                share.grow(len(chunk))
                body += chunk
    except TimeoutError as error:
        raise timed_out(limit_s) from error
    # Where `request.read()` keeps it; its own reading knows neither room nor pace.
    request._read_bytes = bytes(body)  # noqa: SLF001


async def received(
    request: web.Request, most_bytes: int, settings: HttpSettings
) -> AsyncIterator[bytes]:
    """The body as it comes in. Raises: ApiError (413, 408), as `read_body`."""
    if (request.content_length or 0) > most_bytes:
        raise too_large()
    span_s, now_s = settings.receive_timeout_s, asyncio.get_running_loop().time
    count, due_bytes, due_s = 0, 0.0, now_s()
    while True:
        if count >= due_bytes:
            due_bytes, due_s = count + span_s * SLOWEST_BYTES_S, now_s() + span_s
        try:
            async with asyncio.timeout_at(due_s):
                chunk = await request.content.readany()
        except TimeoutError as error:
            raise receive_timed_out() from error
        if not chunk:
            return
        count += len(chunk)
        if count > most_bytes:
            raise too_large()
        yield chunk
