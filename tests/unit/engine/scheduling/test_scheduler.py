from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_engine import BLOCK, CONTEXT, GEOMETRY, VOCABULARY, greedy, open_pool

from dovecote_engine.options import EngineOptions
from dovecote_engine.rows.slab import CAPACITY_STEP_TOKENS, Slab
from dovecote_engine.scheduling.admission import Admission, Limits
from dovecote_engine.scheduling.plan import (
    Outcome,
    Plan,
    PrefillChunk,
    Prefilled,
    Restored,
    RestoreSlice,
)
from dovecote_engine.scheduling.scheduler import RowChange, Scheduler
from dovecote_engine.scheduling.sequence import NO_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dovecote_cache import Pool
    from dovecote_engine.scheduling.sequence import Sequence


@pytest.fixture
def pool() -> Iterator[Pool]:
    with open_pool() as pool:
        yield pool


@pytest.fixture
def make(pool: Pool) -> Iterator[Callable[..., Scheduler]]:
    made: list[tuple[Admission, Scheduler]] = []

    def make(slab_tokens: int = 1 << 20, **options: float) -> Scheduler:
        chosen = EngineOptions(**options)  # type: ignore[arg-type]
        slab = Slab(GEOMETRY, slab_tokens * GEOMETRY.dense_bytes_per_token)
        admission = Admission(pool, chosen, Limits(VOCABULARY, CONTEXT), lambda: 0.0)
        made.append((admission, Scheduler(admission, slab, chosen, lambda: 0.0)))
        return made[-1][1]

    yield make
    for admission, scheduler in made:
        for sequence in (*admission.take_all(), *scheduler.clear()):
            sequence.lease.release()


def _submit(scheduler: Scheduler, *names: str, prompt: int = 5, agent: str | None = None) -> None:
    for name in names:
        scheduler._admission.submit(greedy(name, [1] * prompt, 4, agent))


def _plan(scheduler: Scheduler) -> Plan:
    """A plan once the slab has room for everything."""
    while (plan := scheduler.plan()).growth is not None:
        scheduler._slab.reserve(plan.growth.rows, plan.growth.tokens)
    scheduler._slab.reserve(plan.rows, plan.capacity)
    return plan


STEP_S = 0.1


def _took(scheduler: Scheduler, part: PrefillChunk | RestoreSlice, seconds: float) -> None:
    """A step with that part has come back, which took so long, and STEP_S for those who decode."""
    decode = tuple(scheduler.rows[: scheduler.decoding])
    if isinstance(part, PrefillChunk):
        outcome = Outcome(prefilled=Prefilled((), seconds))
        plan = Plan(prefill=part, decode=decode)
    else:
        outcome = Outcome(restored=Restored(0, seconds))
        plan = Plan(restore=part, decode=decode)
    scheduler.note(outcome, plan, seconds + STEP_S)


def _prefill_all(scheduler: Scheduler) -> None:
    """Plans until every row decodes, as if each chunk had run."""
    while (chunk := _plan(scheduler).prefill) is not None:
        chunk.sequence.length = chunk.end
        if chunk.is_last:
            scheduler.promote(chunk.sequence)
            chunk.sequence.tokens.append(1)


def _names(scheduler: Scheduler) -> list[str]:
    assert [sequence.row for sequence in scheduler.rows] == [*range(len(scheduler.rows))]
    return [sequence.id for sequence in scheduler.rows]


def _find(scheduler: Scheduler, name: str) -> Sequence:
    return next(sequence for sequence in scheduler.rows if sequence.id == name)


def test_rows_fill_in_the_order_of_submission(make: Callable[..., Scheduler]) -> None:
    """As many start as there are rows."""
    scheduler = make(max_rows=2)
    _submit(scheduler, "a", "b", "c")
    plan = scheduler.plan()
    assert _names(scheduler) == ["a", "b"]
    assert (plan.rows, plan.decode) == (2, ())


def test_requests_of_one_agent_wait_for_each_other(make: Callable[..., Scheduler]) -> None:
    """Another agent's request overtakes; the same agent's does not."""
    scheduler = make(max_rows=4)
    _submit(scheduler, "a1", "a2", agent="a")
    _submit(scheduler, "b1", agent="b")
    scheduler.plan()
    assert _names(scheduler) == ["a1", "b1"]


def test_nobody_starts_who_might_outgrow_the_slab(make: Callable[..., Scheduler]) -> None:
    """Rows are counted at the length they may come to, all together."""
    scheduler = make(slab_tokens=2 * CAPACITY_STEP_TOKENS, max_rows=8)
    _submit(scheduler, "a", "b", "c")
    scheduler.plan()
    assert _names(scheduler) == ["a", "b"]


def test_what_does_not_fit_holds_up_the_rest(make: Callable[..., Scheduler]) -> None:
    """A long request is not starved by shorter ones behind it."""
    scheduler = make(slab_tokens=3 * CAPACITY_STEP_TOKENS, max_rows=8)
    _submit(scheduler, "a")
    scheduler.plan()
    _submit(scheduler, "long", prompt=2 * CAPACITY_STEP_TOKENS - 10)
    _submit(scheduler, "short")
    scheduler.plan()
    assert _names(scheduler) == ["a"]
    for sequence in scheduler.clear():
        sequence.lease.release()
    scheduler.plan()
    assert _names(scheduler) == ["long"]


def test_the_last_row_of_each_range_fills_a_hole(make: Callable[..., Scheduler]) -> None:
    """Decoding rows stay in front, and memory moves by what the moved rows hold."""
    scheduler = make(max_rows=8)
    _submit(scheduler, "a", "b", "c")
    _prefill_all(scheduler)
    _submit(scheduler, "p", "q")
    _plan(scheduler)
    _find(scheduler, "q").length = 2
    leaving = _find(scheduler, "a")
    assert scheduler.retire(leaving) == [RowChange("move", 2, 0, 5), RowChange("move", 4, 2, 2)]
    assert _names(scheduler) == ["c", "b", "q", "p"]
    assert (scheduler.decoding, leaving.row) == (2, NO_ROW)
    leaving.lease.release()


def test_the_last_row_leaves_without_a_move(make: Callable[..., Scheduler]) -> None:
    """Only holes cost memory traffic."""
    scheduler = make()
    _submit(scheduler, "a", "b")
    _prefill_all(scheduler)
    leaving = _find(scheduler, "b")
    assert scheduler.retire(leaving) == []
    leaving.lease.release()


def test_a_row_that_overtakes_swaps_places(make: Callable[..., Scheduler]) -> None:
    """A short prompt that is done first joins the decoding rows in front of a long one."""
    scheduler = make()
    _submit(scheduler, "long", prompt=50)
    _submit(scheduler, "short")
    scheduler.plan()
    long, short = scheduler.rows
    long.length, short.length = 30, 5
    assert scheduler.promote(short) == RowChange("swap", 1, 0, 30)
    assert _names(scheduler) == ["short", "long"]
    assert scheduler.decoding == 1


def test_prompt_chunks_go_round(make: Callable[..., Scheduler]) -> None:
    """A short prompt does not wait until a long one is done."""
    scheduler = make(max_chunk_tokens=10)
    _submit(scheduler, "long", prompt=50)
    _submit(scheduler, "short", prompt=15)
    served = []
    for _ in range(5):
        chunk = _plan(scheduler).prefill
        assert chunk is not None
        chunk.sequence.length = chunk.end
        served.append((chunk.sequence.id, chunk.start, chunk.end))
        if chunk.is_last:
            scheduler.promote(chunk.sequence)
            chunk.sequence.tokens.append(1)
    assert served[:4] == [("long", 0, 10), ("short", 0, 10), ("long", 10, 20), ("short", 10, 15)]
    assert served[4][0] == "long"


def _with_one_decoding(scheduler: Scheduler, *names: str, prompt: int) -> None:
    """The first one decodes, STEP_S a step; the others have a row and nothing in it."""
    _submit(scheduler, names[0])
    _prefill_all(scheduler)
    scheduler.note(Outcome(), Plan(decode=tuple(scheduler.rows)), STEP_S)
    _submit(scheduler, *names[1:], prompt=prompt)
    _plan(scheduler)


@pytest.mark.parametrize(
    ("options", "tokens"),
    (
        ({"gap_ratio": 2.0}, 20),  # a step of 0.1 s at 200 tokens a second, in steps of 4
        ({"gap_ratio": 2.5}, 28),
        ({"gap_ratio": 9.0}, 48),  # chunk_seconds
        ({"gap_ratio": 9.0, "max_chunk_tokens": 40}, 40),
        ({"gap_ratio": 1.01}, 4),  # the least
    ),
)
def test_a_chunk_is_bounded_by_the_gap_that_it_makes(
    make: Callable[..., Scheduler], options: dict[str, float], tokens: int
) -> None:
    """While rows decode, a chunk takes a share of a step's time, and never over chunk_seconds."""
    scheduler = make(**options)
    _with_one_decoding(scheduler, "a", "long", prompt=300)
    _took(scheduler, PrefillChunk(_find(scheduler, "long"), 0, 200), 1.0)
    chunk = scheduler.plan().prefill
    assert chunk is not None
    assert chunk.end - chunk.start == tokens


def test_a_chunk_is_bounded_in_time_while_others_wait(make: Callable[..., Scheduler]) -> None:
    """400 tokens a second for 0.25 s are 100 tokens; alone, a chunk is as long as allowed."""
    scheduler = make(chunk_seconds=0.25, max_chunk_tokens=200)
    _submit(scheduler, "long", prompt=300)
    alone = _plan(scheduler).prefill
    assert alone is not None
    assert alone.end == 200
    _took(scheduler, PrefillChunk(alone.sequence, 0, 400), 1.0)
    _submit(scheduler, "other", prompt=300)
    beside = _plan(scheduler).prefill
    assert beside is not None
    assert beside.end == 100


def test_the_slab_grows_in_slices_while_others_decode(make: Callable[..., Scheduler]) -> None:
    """Who needs the room waits for it; nobody decodes into a slab that is copied as a whole."""
    scheduler = make()
    _submit(scheduler, "a")
    _prefill_all(scheduler)
    slab = scheduler._slab
    _submit(scheduler, "long", prompt=CONTEXT - 5)
    slices = 0
    while (growth := (plan := scheduler.plan()).growth) is not None:
        assert (plan.prefill, plan.restore) == (None, None)
        assert slab.holds(plan.rows, plan.capacity)
        slab.grow(growth.rows, growth.tokens, 1)
        slices += 1
    assert slices == slab.planes
    assert plan.prefill is not None


def test_the_slab_grows_ahead_of_the_answers(make: Callable[..., Scheduler]) -> None:
    """Room for the next tokens is there before the step that needs it."""
    scheduler = make()
    _submit(scheduler, "a")
    _prefill_all(scheduler)
    slab = scheduler._slab
    scheduler.rows[0].length = slab.capacity - slab.planes - 1
    assert scheduler.plan().growth is None
    scheduler.rows[0].length += 1
    for _ in range(slab.planes):
        growth = scheduler.plan().growth
        assert growth is not None
        slab.grow(growth.rows, growth.tokens, 1)
        scheduler.rows[0].length += 1
    plan = scheduler.plan()
    assert plan.growth is None
    assert slab.holds(plan.rows, plan.capacity)


def test_a_cancelled_row_is_not_prefilled(make: Callable[..., Scheduler]) -> None:
    """Nothing more is computed for a request that is gone, unless a batch runs with it anyway."""
    scheduler = make()
    _submit(scheduler, "a")
    scheduler.plan()
    scheduler._admission.cancel("a")
    plan = scheduler.plan()
    assert [sequence.id for sequence in plan.cancelled] == ["a"]
    assert (plan.prefill, plan.decode) == (None, ())


def test_a_plan_says_how_much_room_it_needs(make: Callable[..., Scheduler]) -> None:
    """Rows and positions cover every prompt while nobody decodes, then every row's next token."""
    scheduler = make()
    _submit(scheduler, "a", prompt=30)
    _submit(scheduler, "b", prompt=40)
    assert (scheduler.plan().rows, scheduler.plan().capacity) == (2, 40)
    _prefill_all(scheduler)
    assert (scheduler.plan().rows, scheduler.plan().capacity) == (2, 41)


def test_a_restore_goes_in_slices_while_others_decode(
    make: Callable[..., Scheduler],
) -> None:
    """Blocks are restored at the measured pace, and all at once when nobody waits."""
    scheduler = make(restore_seconds=0.05)
    _submit(scheduler, "a", prompt=10 * BLOCK)
    scheduler.plan()
    scheduler.rows[0].matched = 9 * BLOCK + 3
    alone = scheduler.plan().restore
    assert alone is not None
    assert (alone.start_block, alone.end_block) == (0, 10)
    _took(scheduler, RestoreSlice(alone.sequence, 0, 60), 1.0)
    scheduler.rows[0].matched = 0
    _prefill_all(scheduler)
    _submit(scheduler, "b", prompt=10 * BLOCK)
    _plan(scheduler)
    scheduler.rows[1].matched = 9 * BLOCK + 3
    first = scheduler.plan().restore
    assert first is not None
    assert (first.start_block, first.end_block) == (0, 3)


def test_a_restore_leaves_little_time_for_a_chunk(make: Callable[..., Scheduler]) -> None:
    """Restore and prefill share one allowance: after a long slice no chunk follows in the step."""
    scheduler = make(restore_seconds=0.1)
    _with_one_decoding(scheduler, "a", "b", "c", prompt=10 * BLOCK)
    _took(scheduler, PrefillChunk(scheduler.rows[1], 0, 200), 1.0)
    _took(scheduler, RestoreSlice(scheduler.rows[1], 0, 60), 1.0)
    scheduler.rows[1].matched = 9 * BLOCK
    plan = scheduler.plan()
    assert plan.restore is not None
    assert plan.prefill is None
