"""The events of one request on their way to whoever answers it.

Does not know the engine's thread, nor what an event means beyond which one is the last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dovecote_engine.request import Event, Failed, Finished

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["EventStream"]


class EventStream:
    """The events of one request, in order. Leaving its `async with` cancels what still runs.

    Holds at most `max_tokens` + 2 events, however slow its reader.
    """

    def __init__(self, request_id: str, leave: Callable[[EventStream], None]) -> None:
        self.request_id = request_id
        self.ended = False
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._leave = leave

    async def get(self) -> Event:
        """The next event. Never returns after `Finished` or `Failed`."""
        return await self._events.get()

    def push(self, event: Event) -> None:
        """Appends an event (event loop only); those after the last one are dropped."""
        if not self.ended:
            self.ended = isinstance(event, Finished | Failed)
            self._events.put_nowait(event)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._leave(self)
