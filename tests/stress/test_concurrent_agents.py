"""Many agents at once: no error, each its own answer, in time, and from the cache."""

from __future__ import annotations

import pytest
from load.scenarios import Stage, isolation, normal, rapid, turns

pytestmark = [pytest.mark.stress, pytest.mark.timeout(3600)]


async def test_ten_agents_ask_rapidly_without_an_error(stage: Stage) -> None:
    report = await rapid(stage)
    print(report)
    assert report.unmet == []


async def test_each_answer_belongs_to_its_agent(stage: Stage) -> None:
    report = await isolation(stage)
    print(report)
    assert report.unmet == []


async def test_normal_load_is_answered_soon(stage: Stage) -> None:
    report = await normal(stage)
    print(report)
    assert report.unmet == []


async def test_ten_turns_come_from_the_cache(stage: Stage) -> None:
    report = await turns(stage)
    print(report)
    assert report.unmet == []
