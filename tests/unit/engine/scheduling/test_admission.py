from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tiny_engine import BLOCK, CONTEXT, VOCABULARY, build, drive, greedy, open_pool

from dovecote_engine.errors import BadRequest, ContextExceeded, Draining, Overloaded
from dovecote_engine.options import EngineOptions
from dovecote_engine.request import Request, Sampling
from dovecote_engine.scheduling.admission import Admission, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dovecote_cache import Pool
    from dovecote_engine.scheduling.sequence import Sequence


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


def _take(admission: Admission) -> str | None:
    heads = admission.heads([])
    if not heads:
        return None
    admission.take(heads[0])
    _end(admission, heads[0])
    return heads[0].id


def _end(admission: Admission, sequence: Sequence) -> None:
    sequence.lease.release()
    admission.finished(sequence)


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


def test_a_pool_in_active_use_refuses(clock: Clock) -> None:
    """Beyond 95 % of the frames a request is refused, until another one has ended.

    Where not even one block is left, that is known before a prompt is rendered.
    """
    with open_pool(size_bytes=1 << 20) as pool:
        admission = Admission(pool, EngineOptions(), Limits(VOCABULARY, 1 << 20), clock)
        limit = int(pool.frames * 0.95)
        admission.submit(greedy("a", [1], (limit - 2) * BLOCK))
        with pytest.raises(Overloaded):
            admission.submit(greedy("b", [1], 2 * BLOCK))
        assert pool.stats().promised == limit - 1
        admission.screen(1)
        admission.submit(greedy("c", [1], BLOCK - 1))
        with pytest.raises(Overloaded):
            admission.screen(1)
        assert _take(admission) == "a"
        admission.screen(1)
        admission.submit(greedy("b", [1], 2 * BLOCK))
        assert [_take(admission), _take(admission)] == ["c", "b"]


def test_idle_blocks_make_room_before_anybody_is_refused() -> None:
    """A pool full of what idle agents left takes a request as an empty one does."""
    pool = open_pool(size_bytes=1 << 18)
    engine = build(pool=pool)
    for number in range(2 * pool.frames * BLOCK // 200):
        prompt = tuple((number + 7 * n) % VOCABULARY for n in range(200))
        drive(engine, greedy(f"idle {number}", prompt, 2, agent=f"agent {number}"))
    stats = pool.stats()
    assert stats.cached >= 0.9 * stats.frames
    tokens = int(0.9 * stats.frames) * BLOCK
    engine.submit(greedy("new", [1], min(tokens, CONTEXT) - 1))
    engine.cancel("new")
    drive(engine)
    engine.close()


def test_a_request_larger_than_the_pool_is_let_in(clock: Clock) -> None:
    """It reserves all there is; what comes after is computed without being kept."""
    with open_pool(size_bytes=1 << 20) as pool:
        admission = Admission(pool, EngineOptions(), Limits(VOCABULARY, 1 << 20), clock)
        admission.submit(greedy("a", [1], pool.frames * BLOCK + 1))
        assert pool.stats().promised == pool.frames
        assert _take(admission) == "a"


def test_a_queue_is_bounded_in_tokens_too(pool: Pool, clock: Clock) -> None:
    """Prompts that wait come to so many tokens, unless it is one alone."""
    options = EngineOptions(max_waiting_tokens=50)
    admission = Admission(pool, options, Limits(VOCABULARY, CONTEXT), clock)
    admission.submit(greedy("long", [1] * 60, 1))
    with pytest.raises(Overloaded, match="tokens"):
        admission.submit(greedy("short", [1], 1))
    assert _take(admission) == "long"
    admission.submit(greedy("a", [1] * 30, 1))
    admission.submit(greedy("b", [1] * 20, 1))
    assert admission.waiting_tokens == 50
    with pytest.raises(Overloaded):
        admission.submit(greedy("c", [1], 1))
    assert [_take(admission), _take(admission)] == ["a", "b"]
    assert admission.waiting_tokens == 0


def test_retry_after_follows_the_departures(admission: Admission, clock: Clock) -> None:
    """With a departure every 4 seconds and three waiting, the fourth is due in 16."""
    for name in "wxyz":
        admission.submit(greedy(name, [1], 5))
        clock.now += 4
        _take(admission)
        clock.now += 1000  # idle: says nothing
    for name in "abc":
        admission.submit(greedy(name, [1], 5))
    with pytest.raises(Overloaded) as raised:
        admission.submit(greedy("d", [1], 5))
    assert raised.value.retry_after_s == pytest.approx(16)


@pytest.mark.parametrize(("gap_s", "wait_s"), ((0.001, 1), (1000, 60)))
def test_retry_after_is_one_second_to_a_minute(
    admission: Admission, clock: Clock, gap_s: float, wait_s: float
) -> None:
    """However fast or slow requests leave."""
    admission.submit(greedy("a", [1], 5))
    clock.now += gap_s
    _take(admission)
    assert admission.retry_after_s == wait_s


def test_the_screen_refuses_before_there_are_tokens(admission: Admission) -> None:
    """A full queue and a closed door are known before a prompt is rendered."""
    admission.screen(10**9)
    for name in "abc":
        admission.submit(greedy(name, [1], 5))
    with pytest.raises(Overloaded):
        admission.screen(1)
    admission.drain()
    with pytest.raises(Draining):
        admission.screen(1)


def test_the_screen_knows_what_no_context_can_hold(pool: Pool, clock: Clock) -> None:
    """With tokens of at most 3 characters, 3 * CONTEXT of them leave no token for an answer."""
    limits = Limits(VOCABULARY, CONTEXT, token_characters=3)
    admission = Admission(pool, EngineOptions(), limits, clock)
    admission.screen(3 * CONTEXT - 3)
    with pytest.raises(ContextExceeded) as raised:
        admission.screen(3 * CONTEXT - 2)
    assert raised.value.asked_tokens == CONTEXT


def test_who_waits_too_long_is_taken_out(pool: Pool, clock: Clock) -> None:
    """The rest of the queue stays, and the tokens are counted down."""
    options = EngineOptions(queue_seconds=10)
    admission = Admission(pool, options, Limits(VOCABULARY, CONTEXT), clock)
    admission.submit(greedy("a", [1] * 7, 5))
    clock.now += 9
    admission.submit(greedy("b", [1] * 5, 5))
    assert admission.take_expired() == ()
    clock.now += 1
    (expired,) = admission.take_expired()
    assert expired.id == "a"
    _end(admission, expired)
    assert (admission.waiting, admission.waiting_tokens) == (1, 5)
    assert _take(admission) == "b"


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
    """Of each agent without a row its first request is at the head, of no agent all are."""
    admission.submit(greedy("a1", [1], 5, agent="a"))
    admission.submit(greedy("a2", [1], 5, agent="a"))
    admission.submit(greedy("b1", [1], 5, agent="b"))
    first, other = admission.heads([])
    assert [first.id, other.id] == ["a1", "b1"]
    admission.take(first)
    assert [each.id for each in admission.heads([first])] == ["b1"]
    _end(admission, first)
    admission.take(other)
    assert [each.id for each in admission.heads([other])] == ["a2"]
    _end(admission, other)


def test_a_cancelled_request_leaves_the_queue(admission: Admission) -> None:
    """It comes back marked; a cancel of an unknown request is ignored."""
    admission.submit(greedy("a", [1], 5))
    admission.submit(greedy("b", [1], 5))
    assert admission.cancel("a") == "waiting"
    assert admission.cancel("nobody") is None
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
