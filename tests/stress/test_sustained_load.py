"""Load for an hour, half an hour, ten minutes: stable, in memory that does not grow."""

from __future__ import annotations

import pytest
from load.scenarios import Stage, hour, memory, steady

pytestmark = [pytest.mark.stress, pytest.mark.timeout(5400)]


async def test_an_hour_is_stable_and_does_not_slow_down(stage: Stage) -> None:
    """None fails, and the last third's p95 is within a fifth of the first third's."""
    report = await hour(stage)
    print(report)
    assert report.unmet == []


async def test_ten_requests_a_minute_over_five_agents(stage: Stage) -> None:
    report = await steady(stage)
    print(report)
    assert report.unmet == []


async def test_memory_does_not_grow_in_half_an_hour(stage: Stage) -> None:
    report = await memory(stage)
    print(report)
    assert report.unmet == []
