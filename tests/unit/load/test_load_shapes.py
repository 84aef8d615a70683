from __future__ import annotations

import pytest
from load import shapes


def test_at_once_is_all_at_the_start() -> None:
    assert list(shapes.at_once(3)) == [0.0, 0.0, 0.0]


def test_a_constant_load_is_evenly_spaced() -> None:
    assert list(shapes.constant(2.0, 2.0)) == [0.0, 0.5, 1.0, 1.5]


def test_bursts_come_together_again_and_again() -> None:
    assert list(shapes.bursts(2, 5.0, 10.0)) == [0.0, 0.0, 5.0, 5.0]


@pytest.mark.parametrize(("first", "last"), ((1.0, 9.0), (9.0, 1.0), (5.0, 5.0)))
def test_a_ramp_sends_its_average_and_changes_its_rate(first: float, last: float) -> None:
    """50 requests in ten seconds; of the first and last second, as many as their rates say."""
    due = list(shapes.ramp(first, last, 10.0))
    assert len(due) == 50
    assert due == sorted(due)
    assert 0 <= due[0] <= due[-1] <= 10
    assert sum(at < 1 for at in due) == pytest.approx(first, abs=1.1)
    assert sum(at >= 9 for at in due) == pytest.approx(last, abs=1.1)
