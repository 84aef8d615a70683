"""The last minutes: rates over slots, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

from dovecote_engine.request import Finished, Started, Timing, TokenEvent, Usage
from dovecote_http.operators.history import KEPT_SLOTS, History
from tests.unit.http.scripted_engine import Counters, Status

STATUS = Status(running=2, waiting=1, draining=False)


class Clock:
    """A clock that is moved by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_slot_has_the_rates_of_its_time() -> None:
    """Tokens, cached and computed ones over the slot's real length; means of the first tokens."""
    clock = Clock()
    history = History(clock)
    history.sample(STATUS)
    started = Started("a", 5, Timing(0, 0, 0))
    history.observe(started, 0.25)
    history.observe(started, 0.75)
    for token in range(8):
        history.observe(TokenEvent("a", token, ""), 1.0)
    history.observe(Finished("a", "stop", "", Usage(30, 12, 8)), 1.5)
    clock.now_s += 4
    history.sample(replace(STATUS, counters=Counters(prefilled_tokens=202 + 18)))
    slot = history.slots[-1]
    assert (slot.span_s, slot.tokens_per_s, slot.cached_per_s) == (4, 2, 3)
    assert (slot.prefilled_per_s, slot.first_token_s) == (4.5, 0.5)
    assert (slot.running, slot.waiting) == (2, 1)


def test_without_an_engine_a_slot_is_empty() -> None:
    """A new engine's counters begin at nothing: that is no negative rate."""
    clock = Clock()
    history = History(clock)
    history.sample(STATUS)
    for status in (None, STATUS, replace(STATUS, counters=Counters(prefilled_tokens=3))):
        clock.now_s += 1
        history.sample(status)
        assert history.slots[-1].prefilled_per_s == 0
    assert history.slots[1].running == 0
    assert history.slots[-1].first_token_s is None


def test_only_the_last_slots_are_kept() -> None:
    """However long the server runs."""
    history = History()
    for _ in range(KEPT_SLOTS + 10):
        history.sample(None)
    assert len(history.slots) == KEPT_SLOTS
