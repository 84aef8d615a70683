"""Workers that send what is due: never more at once than there are workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from load.records import RequestResult

__all__ = ["Due", "run_load"]


@dataclass(frozen=True, slots=True)
class Due:
    """A request to send `at_s` seconds after the start, or as soon after as a worker is free."""

    at_s: float
    send: Callable[[], Awaitable[RequestResult]]


async def run_load(due: Iterable[Due], workers: int) -> list[RequestResult]:
    """The results of all, in the order in which they were due.

    Raises: whatever a `send` raises, once the requests in flight have ended.
    """
    queue: asyncio.Queue[tuple[int, Due] | None] = asyncio.Queue()
    results: dict[int, RequestResult] = {}

    async def work() -> None:
        while (item := await queue.get()) is not None:
            number, each = item
            results[number] = await each.send()

    async def hand_out() -> None:
        started = asyncio.get_running_loop().time()
        for number, each in enumerate(due):
            wait_s = started + each.at_s - asyncio.get_running_loop().time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            queue.put_nowait((number, each))
        for _ in range(workers):
            queue.put_nowait(None)

    async with asyncio.TaskGroup() as group:
        group.create_task(hand_out())
        for _ in range(workers):
            group.create_task(work())
    return [results[number] for number in sorted(results)]
