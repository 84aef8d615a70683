"""Load for an hour, half an hour, ten minutes: stable, in memory that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
from load.report import Report
from load.scenarios import hour, memory, steady

pytestmark = [pytest.mark.stress, pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def an_hour(play: Any) -> dict[str, bool]:
    """What was expected of one hour, and whether it held."""
    report: Report = play(hour)
    return {each.what: each.holds for each in report.expectations}


def test_an_hour_is_stable(an_hour: dict[str, bool]) -> None:
    """Every request of it is answered: none is lost, none fails."""
    stable = ("answered", "answered without a token", "lost", "5xx")
    assert [what for what in stable if not an_hour[what]] == []


def test_an_hour_does_not_slow_it_down(an_hour: dict[str, bool]) -> None:
    """The last third of it is answered as soon as the first."""
    (slower,) = (what for what in an_hour if what.startswith("late"))
    assert an_hour[slower]


def test_ten_requests_a_minute_over_five_agents(play: Any) -> None:
    assert play(steady).unmet == []


def test_memory_does_not_grow_in_half_an_hour(play: Any) -> None:
    assert play(memory).unmet == []
