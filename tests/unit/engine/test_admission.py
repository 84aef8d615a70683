from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tiny_engine import BLOCK, CONTEXT, VOCABULARY, greedy, open_pool

from dovecote_engine.admission import Admission, Limits
from dovecote_engine.errors import BadRequest, ContextExceeded, Draining, Overloaded
from dovecote_engine.options import EngineOptions
from dovecote_engine.request import Request, Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dovecote_cache import Pool
    from dovecote_engine.sequence import Sequence


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pool() -> Iterator[Pool]:
    with open_pool() as pool:
        yield pool


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(pool: Pool, clock: Clock) -> Iterator[Admission]:
    options = EngineOptions(max_waiting=3, default_max_tokens=10)
    admission = Admission(pool, options, Limits(VOCABULARY, CONTEXT), clock)
    yield admission
    for sequence in admission.take_all():
        sequence.lease.release()


def _anything(sequence: Sequence) -> bool:
    return True


def _take(admission: Admission) -> str | None:
    sequence = admission.take_next(set(), _anything)
    if sequence is None:
        return None
    sequence.lease.release()
    admission.finished(sequence)
    return sequence.id


@pytest.mark.parametrize(
    ("request_", "field"),
    (
        (Request("r", ()), "messages"),
        (Request("r", (VOCABULARY,)), "messages"),
        (Request("r", (-1, 5)), "messages"),
        (Request("r", (1,), max_tokens=0), "max_tokens"),
        (Request("r", (1,), sampling=Sampling(temperature=3)), "temperature"),
    ),
)
def test_a_request_that_can_never_run_names_its_fault(
    admission: Admission, request_: Request, field: str
) -> None:
    """The caller learns which field to change, and nothing is reserved."""
    with pytest.raises(BadRequest) as raised:
        admission.submit(request_)
    assert raised.value.field == field
    assert admission.waiting == 0


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "asked"),
    ((CONTEXT, None, CONTEXT), (CONTEXT - 3, 4, CONTEXT + 1), (CONTEXT + 5, 1, CONTEXT + 6)),
)
def test_a_request_beyond_the_context_is_told_by_how_much(
    admission: Admission, prompt: int, max_tokens: int | None, asked: int
) -> None:
    """The error carries the limit and what was asked for."""
    with pytest.raises(ContextExceeded) as raised:
        admission.submit(Request("r", (1,) * prompt, max_tokens))
    assert (raised.value.limit_tokens, raised.value.asked_tokens) == (CONTEXT, asked)


def test_a_request_reserves_the_frames_of_its_longest_answer(
    admission: Admission, pool: Pool
) -> None:
    """What is let in can be kept to its end; without max_tokens the default counts."""
    admission.submit(Request("r", (1,) * 5, max_tokens=2 * BLOCK))
    assert pool.stats().promised == 3
    admission.submit(Request("s", (1,) * 5))
    assert pool.stats().promised == 3 + 2


def test_the_queue_is_bounded(admission: Admission, pool: Pool) -> None:
    """One request too many is refused with a time to come back, and reserves nothing."""
    for name in "abc":
        admission.submit(greedy(name, [1], 5))
    promised = pool.stats().promised
    with pytest.raises(Overloaded) as raised:
        admission.submit(greedy("d", [1], 5))
    assert 1 <= raised.value.retry_after_s <= 60
    assert pool.stats().promised == promised


def test_a_full_pool_refuses(clock: Clock) -> None:
    """A request whose frames cannot be promised is refused, and may come back later."""
    with open_pool(size_bytes=1 << 20) as pool:
        admission = Admission(pool, EngineOptions(), Limits(VOCABULARY, 1 << 20), clock)
        tokens = pool.frames * BLOCK
        admission.submit(greedy("a", [1], tokens - BLOCK))
        with pytest.raises(Overloaded):
            admission.submit(greedy("b", [1], 2 * BLOCK))
        assert _take(admission) == "a"
        admission.submit(greedy("b", [1], 2 * BLOCK))
        assert _take(admission) == "b"


def test_a_request_larger_than_the_pool_is_let_in(clock: Clock) -> None:
    """It reserves all there is; what comes after is computed without being kept."""
    with open_pool(size_bytes=1 << 20) as pool:
        admission = Admission(pool, EngineOptions(), Limits(VOCABULARY, 1 << 20), clock)
        admission.submit(greedy("a", [1], pool.frames * BLOCK + 1))
        assert pool.stats().promised == pool.frames
        assert _take(admission) == "a"


def test_retry_after_follows_the_completions(admission: Admission, clock: Clock) -> None:
    """With a completion every 4 seconds and three waiting, the fourth is due in 16."""
    for name in "wxyz":
        admission.submit(greedy(name, [1], 5))
        _take(admission)
        clock.now += 4
    for name in "abc":
        admission.submit(greedy(name, [1], 5))
    with pytest.raises(Overloaded) as raised:
        admission.submit(greedy("d", [1], 5))
    assert raised.value.retry_after_s == pytest.approx(16)


def test_an_id_is_live_until_it_finishes(admission: Admission) -> None:
    """Two requests of one id would share their events."""
    admission.submit(greedy("a", [1], 5))
    with pytest.raises(BadRequest, match="id"):
        admission.submit(greedy("a", [1], 5))
    assert _take(admission) == "a"
    admission.submit(greedy("a", [1], 5))


def test_a_draining_door_is_closed(admission: Admission) -> None:
    """What waits already stays in the queue."""
    admission.submit(greedy("a", [1], 5))
    admission.drain()
    with pytest.raises(Draining):
        admission.submit(greedy("b", [1], 5))
    assert admission.is_draining
    assert admission.waiting == 1


def test_an_agent_that_is_busy_is_passed_over(admission: Admission) -> None:
    """The next agent's request goes first, and order within an agent is kept."""
    admission.submit(greedy("a1", [1], 5, agent="a"))
    admission.submit(greedy("b1", [1], 5, agent="b"))
    taken = admission.take_next({"a"}, _anything)
    assert taken is not None
    assert taken.id == "b1"
    taken.lease.release()
    assert admission.take_next({"a", "b"}, _anything) is None
    assert _take(admission) == "a1"


def test_what_does_not_fit_holds_up_the_rest(admission: Admission) -> None:
    """A long request is not starved by shorter ones behind it."""
    admission.submit(greedy("long", [1], 100))
    admission.submit(greedy("short", [1], 5))
    assert admission.take_next(set(), lambda each: each.extent.planned_tokens < 50) is None
    assert admission.waiting == 2


def test_a_cancelled_request_leaves_the_queue(admission: Admission) -> None:
    """It comes back marked; a cancel of an unknown request is ignored."""
    admission.submit(greedy("a", [1], 5))
    admission.submit(greedy("b", [1], 5))
    admission.cancel("a")
    admission.cancel("nobody")
    (taken,) = admission.take_cancelled([])
    assert (taken.id, taken.is_cancelled) == ("a", True)
    taken.lease.release()
    assert admission.take_cancelled([]) == ()
    assert admission.waiting == 1


def test_a_wait_ends_with_a_submission_from_another_thread(admission: Admission) -> None:
    """The engine thread sleeps on the queue, not on a clock."""
    thread = threading.Thread(target=admission.submit, args=(greedy("a", [1], 5),))
    thread.start()
    assert admission.wait(30)
    thread.join()


def test_a_wait_without_work_says_so(admission: Admission) -> None:
    """Waking ends one wait, time the other; neither is work."""
    admission.wake()
    assert not admission.wait(30)
    assert not admission.wait(0)
