"""More than the pool holds and the queue takes: honest refusals, no failure, a quick recovery."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conversation import MODEL
from load.client import BackOff, LoadClient
from load.scenarios import burst, recovery, sustained
from load.summary import summarise
from load.talks import reserving
from load.workers import Due, run_load
from metrics import metrics
from server_process import ServerProcess

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1200)]

PATIENT = BackOff(attempts=60, longest_s=3.0)
SMALL_POOL = ("--memory-only", "--pool-size", "16MiB", "--codec", "q8")


def test_150_at_once_lose_none(play: Any) -> None:
    assert play(burst).unmet == []


async def test_a_full_pool_refuses_with_a_time_to_come_back(cache_dir: Path) -> None:
    """Active use stays at 95 % at most; what is beyond gets 429 with Retry-After, and its turn."""
    active: list[float] = []
    with ServerProcess(cache_dir, SMALL_POOL) as server:
        watch = asyncio.create_task(_note_active_use(server.url, active))
        async with LoadClient(server.url, MODEL) as client:
            asks = [partial(client.ask, reserving(f"full-{n}", n), PATIENT) for n in range(20)]
            results = await run_load([Due(0.0, ask) for ask in asks], workers=20)
        watch.cancel()
        await asyncio.wait((watch,))
    figures = summarise(results)
    print(figures)
    assert (figures.answered, figures.codes_5xx, figures.lost) == (20, 0, 0)
    assert figures.statuses[429] > 0
    told = [each for result in results for each in result.retry_afters]
    assert len(told) == figures.statuses[429]
    assert all(each is not None and 1 <= float(each) <= 120 for each in told)
    assert 0.7 < max(active) <= 0.95


def test_a_minute_of_overload_crashes_nothing(play: Any, process: ServerProcess) -> None:
    """Some are refused, some answered; the same process serves on, and has logged no exception."""
    report = play(sustained)
    assert report.unmet == []
    assert report.summary.statuses[429] > 0
    assert not [event for event in process.events if "exception" in event]


def test_it_recovers_within_half_a_minute(play: Any) -> None:
    report = play(recovery)
    assert report.unmet == []
    assert report.summary.statuses[429] > 0


async def _note_active_use(url: str, seen: list[float]) -> None:
    """Notes which part of the pool is in active use, again and again until it is cancelled."""
    while True:
        found = await asyncio.to_thread(metrics, url)
        active = found["dovecote_pool_leased_frames"] + found["dovecote_pool_promised_frames"]
        seen.append(active / found["dovecote_pool_frames"])
        await asyncio.sleep(0.02)
