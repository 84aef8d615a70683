"""The events of several requests as one series, each with its request's place among them.

Does not know what the events say, but for which is a request's last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dovecote_engine.request import Failed, Finished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from dovecote_engine.request import Event
    from dovecote_http.bridge.bridge import EventStream

__all__ = ["MergedEvents"]


class MergedEvents:
    """Events in the order of their arrival, until each stream has ended. Event loop only."""

    def __init__(self, streams: Sequence[EventStream]) -> None:
        self._streams = streams
        self._open = len(streams)
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue(maxsize=1)
        self._pumps: list[asyncio.Task[None]] = []

    @property
    def ended(self) -> bool:
        """Whether the last event of every stream has been given out."""
        return self._open == 0

    async def get(self) -> tuple[int, Event]:
        """The next event and its stream's place. Never returns once all have ended."""
        if len(self._streams) == 1:
            number, event = 0, await self._streams[0].get()
        else:
            number, event = await self._queue.get()
        self._open -= isinstance(event, Finished | Failed)
        return number, event

    async def __aenter__(self) -> Self:
        if len(self._streams) > 1:
            self._pumps = [
                asyncio.create_task(self._pump(number, stream))
                for number, stream in enumerate(self._streams)
            ]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _pump(self, number: int, stream: EventStream) -> None:
        event: Event | None = None
        while not isinstance(event, Finished | Failed):
            event = await stream.get()
            await self._queue.put((number, event))
