from __future__ import annotations

import pytest

from dovecote_engine.options import EngineOptions
from dovecote_engine.scheduling.pace import Pace


def test_a_pace_guesses_until_it_has_measured() -> None:
    """The first piece of work is a guess, the next ones follow the measurement."""
    pace = Pace(first_guess=32, minimum=16)
    assert pace.units_in(0.25) == 32
    pace.record(100, 1.0)
    assert pace.units_in(0.5) == 50


def test_a_pace_overlooks_a_stall() -> None:
    """One slow piece of work, the very first included, does not shrink the next ones."""
    pace = Pace(first_guess=32, minimum=1)
    pace.record(1, 1.0)
    pace.record(100, 1.0)
    pace.record(2, 1.0)
    assert pace.units_in(1.0) == 100


def test_a_pace_follows_a_lasting_change() -> None:
    """After four slower measurements they are the pace."""
    pace = Pace(first_guess=32, minimum=1)
    pace.record(1000, 1.0)
    for _ in range(4):
        pace.record(100, 1.0)
    assert pace.units_in(1.0) == 100


def test_a_pace_never_stops() -> None:
    """Slow work still gets its minimum, and work that took no time breaks nothing."""
    pace = Pace(first_guess=32, minimum=16)
    pace.record(1, 100.0)
    assert pace.units_in(0.25) == 16
    pace.record(1, 0.0)
    assert pace.units_in(0.25) > 16


@pytest.mark.parametrize(
    "name",
    (
        "max_rows",
        "max_waiting",
        "max_waiting_tokens",
        "queue_seconds",
        "pool_limit",
        "slab_bytes",
        "default_max_tokens",
        "max_chunk_tokens",
        "chunk_seconds",
        "restore_seconds",
        "flush_seconds",
        "slab_idle_seconds",
    ),
)
def test_an_option_that_leaves_no_room_is_refused(name: str) -> None:
    """A limit of zero is an error at start, not a server that never answers."""
    with pytest.raises(ValueError, match=name):
        EngineOptions(**{name: 0})


def test_a_piece_is_at_most_four_times_what_was_measured() -> None:
    """Two units in no time are no reason for a thousand at once."""
    pace = Pace(2, 1)
    pace.record(2, 1e-5)
    assert pace.units_in(1.0) == 8
    pace.record(8, 1e-5)
    assert pace.units_in(1.0) == 32
