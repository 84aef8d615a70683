"""Samples of a process's memory over a run."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MemorySample", "MemorySampler", "growth"]


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Resident bytes of a process at a moment of the monotonic clock."""

    at_s: float
    rss_bytes: int


@dataclass
class MemorySampler:
    """Samples a process every `every_s` seconds while its context is open. Needs no process."""

    pid: int | None
    every_s: float = 1.0
    samples: list[MemorySample] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._sample()

    async def _run(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(self.every_s)

    def _sample(self) -> None:
        if self.pid is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            rss = psutil.Process(self.pid).memory_info().rss
            self.samples.append(MemorySample(time.monotonic(), rss))


def growth(samples: Sequence[MemorySample]) -> float | None:
    """By which fraction memory grew from the first to the last fifth of the run, by medians.

    The very first tenth is left out: buffers are made at first use. None for fewer than 10 samples.
    """
    settled = samples[len(samples) // 10 :]
    if len(samples) < 10:
        return None
    fifth = max(1, len(settled) // 5)
    early = statistics.median(sample.rss_bytes for sample in settled[:fifth])
    late = statistics.median(sample.rss_bytes for sample in settled[-fifth:])
    return late / early - 1
