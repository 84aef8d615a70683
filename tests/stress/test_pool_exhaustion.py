"""More than the pool holds and the queue takes: honest refusals, no failure, a quick recovery."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from conversation import MODEL
from load.client import Ask, BackOff, LoadClient
from load.scenarios import Stage, burst, recovery, sustained
from load.summary import summarise
from load.workers import Due, run_load
from server_process import ServerProcess

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1200)]

PATIENT = BackOff(attempts=60, longest_s=3.0)
SMALL_POOL = ("--memory-only", "--pool-size", "16MiB", "--codec", "q8")


async def test_150_at_once_lose_none(stage: Stage) -> None:
    report = await burst(stage)
    print(report)
    assert report.unmet == []


async def test_a_full_pool_refuses_with_a_time_to_come_back(cache_dir: Path) -> None:
    """Active use stays at 95 % at most; what is beyond gets 429 with Retry-After, and its turn."""
    active: list[float] = []
    with ServerProcess(cache_dir, SMALL_POOL) as server:
        watch = asyncio.create_task(_note_active_use(server.url, active))
        async with LoadClient(server.url, MODEL) as client:
            due = [Due(0.0, partial(client.ask, _reserving(n), PATIENT)) for n in range(20)]
            results = await run_load(due, workers=20)
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


async def test_a_minute_of_overload_crashes_nothing(stage: Stage, process: ServerProcess) -> None:
    pid = process.pid
    report = await sustained(stage)
    print(report)
    assert report.unmet == []
    assert process.pid == pid
    assert not [event for event in process.events if "exception" in event]


async def test_it_recovers_within_half_a_minute(stage: Stage) -> None:
    report = await recovery(stage)
    print(report)
    assert report.unmet == []


def _reserving(number: int) -> Ask:
    """A short answer for which 200 tokens have to be reserved."""
    content = f"What is the capital of France? I ask for the {number}. time."
    return Ask(f"full-{number}", ({"role": "user", "content": content},), 200)


async def _note_active_use(url: str, seen: list[float]) -> None:
    """Notes which part of the pool is in active use, again and again until it is cancelled."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/metrics") as response:
                text = await response.text()
            found = dict(re.findall(r"^dovecote_pool_(\w*frames) (\S+)$", text, re.MULTILINE))
            active = float(found["leased_frames"]) + float(found["promised_frames"])
            seen.append(active / float(found["frames"]))
            await asyncio.sleep(0.02)
