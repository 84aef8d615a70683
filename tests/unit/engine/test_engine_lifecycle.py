from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_engine import (
    BLOCK,
    CONTEXT,
    Answer,
    Answers,
    assert_idle,
    build,
    cached_tokens,
    drive,
    greedy,
    open_pool,
    reference,
)

from dovecote_cache import Pool
from dovecote_engine.errors import Draining, Overloaded

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote_engine.engine import Engine, EngineStatus


def _prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


def _addresses(engine: Engine) -> list[int]:
    slab: Any = engine._rows
    planes: list[Any] = [*slab.keys, *slab.values]
    return [np.asarray(memoryview(each)).__array_interface__["data"][0] for each in planes]


def test_a_full_queue_refuses_and_recovers() -> None:
    """Refused requests leave nothing behind; later ones are let in."""
    engine = build(max_rows=1, max_waiting=2)
    for name in "ab":
        engine.submit(greedy(name, _prompt(5), 4))
    with pytest.raises(Overloaded):
        engine.submit(greedy("c", _prompt(5), 4))
    drive(engine)
    assert drive(engine, greedy("c", _prompt(5), 4))["c"].tokens == reference(_prompt(5), 4)


def test_a_full_pool_refuses_and_recovers() -> None:
    """When every frame is promised the answer is Overloaded, until one ends."""
    pool = open_pool(size_bytes=1 << 20)
    engine = build(pool=pool)
    size = min(CONTEXT, pool.frames * BLOCK // 2 + BLOCK)
    lets_in = int(pool.frames * 0.95) // (size // BLOCK)
    for name in range(lets_in):
        engine.submit(greedy(str(name), (1,), size - 1))
    with pytest.raises(Overloaded):
        engine.submit(greedy("z", (1,), size - 1))
    for name in range(lets_in):
        engine.cancel(str(name))
    drive(engine)
    assert drive(engine, greedy("z", _prompt(5), 4))["z"].tokens == reference(_prompt(5), 4)


def test_a_pool_smaller_than_a_request_keeps_what_fits() -> None:
    """Sealing stops without a word, and the request goes on to its end."""
    pool = open_pool(size_bytes=1 << 18)
    assert pool.frames * BLOCK < 400
    engine = build(pool=pool)
    prompt = _prompt(400)
    answer = drive(engine, greedy("r", prompt, 5))["r"]
    assert answer.tokens == reference(prompt, 5)
    assert engine.status.counters.seal_errors == 0


@pytest.mark.parametrize("choices", (1, 3))
@pytest.mark.parametrize("phase", ("waiting", "restoring", "prefilling", "decoding"))
def test_a_cancel_works_in_every_phase(phase: str, choices: int) -> None:
    """Frames, rows and leases are what they were before, after one step, the neighbour notices
    nothing, and a retry finds more in the pool than the first try did, if that computed any block.
    """
    engine = build(
        max_rows=choices if phase == "waiting" else choices + 1,
        max_chunk_tokens=16,
        restore_seconds=1e-9,
        gap_ratio=1e9,
    )
    prompt = _prompt(40 * BLOCK, 1)
    if phase == "restoring":
        drive(engine, greedy("before", prompt[: 30 * BLOCK], 1))
    answers = Answers()
    neighbour = greedy("n", _prompt(6), 90)
    engine.submit(neighbour)
    while not answers["n"].tokens:
        answers.step(engine)
    before = engine.status
    engine.submit(replace(greedy("r", prompt, 50), choices=choices))
    computed = 0
    while phase != "waiting" and (computed := _length(engine, "r", phase)) < 3 * BLOCK:
        answers.step(engine)
    assert engine.cancel("r") == phase
    engine.cancel("r")
    answers.step(engine)
    assert answers["r"].reason == "cancelled"
    assert engine.cancel("r") is None
    _assert_baseline(before, engine.status)
    engine._pool.check()
    assert not answers["n"].is_over
    while engine.wait(0):
        answers.step(engine)
    assert answers["n"].tokens == reference(neighbour.prompt, 90)
    assert_idle(engine)
    retry = drive(engine, greedy("retry", prompt, 5))["retry"]
    kept = {"restoring": 30 * BLOCK, "decoding": len(prompt) - 1}
    assert cached_tokens(retry) == kept.get(phase, computed)
    assert retry.tokens == reference(prompt, 5)


def _length(engine: Engine, name: str, phase: str) -> int:
    """What the row holds of that request's prompt and first choice, 0 before that phase."""
    rows = [row for row in engine._scheduler.rows if row.id == name and row.choice == 0]
    return rows[0].length if rows and rows[0].phase == phase else 0


def _assert_baseline(before: EngineStatus, after: EngineStatus) -> None:
    """Nothing is left of what ran between two snapshots but blocks that can be evicted."""
    for name in ("running", "waiting", "waiting_tokens"):
        assert getattr(after, name) == getattr(before, name)
    # The neighbour decodes on: what it fills changes from promised to leased.
    pool, then = after.pool, before.pool
    assert pool.leases == then.leases
    assert pool.leased + pool.promised == then.leased + then.promised
    assert pool.leased + pool.cached + pool.free == pool.frames


def test_a_cancelled_request_leaves_what_it_computed() -> None:
    """The next request with that prompt starts from there."""
    engine = build(max_chunk_tokens=16)
    prompt = _prompt(100)
    engine.submit(greedy("r", prompt, 50))
    answers = Answers()
    for _ in range(3):
        answers.step(engine)
    engine.cancel("r")
    drive(engine)
    again = drive(engine, greedy("again", prompt, 5))["again"]
    assert cached_tokens(again) == 48
    assert again.tokens == reference(prompt, 5)


def test_who_waits_too_long_is_told_when_to_come_back() -> None:
    """It fails alone, holds nothing any more, and is counted."""
    engine = build(max_rows=1, queue_seconds=10)
    now = [0.0]
    engine._admission._clock = lambda: now[0]
    engine.submit(greedy("running", _prompt(5), 30))
    answers = Answers()
    answers.step(engine)
    engine.submit(greedy("late", _prompt(5), 4))
    now[0] = 9.9
    answers.step(engine)
    assert not answers["late"].is_over
    now[0] = 10.0
    answers.step(engine)
    failed = answers["late"].failed
    assert failed is not None
    assert failed.retry_after_s is not None
    assert 1 <= failed.retry_after_s <= 60
    while engine.wait(0):
        answers.step(engine)
    assert answers["running"].tokens == reference(_prompt(5), 30)
    assert engine.status.counters.expired == 1
    assert_idle(engine)


def test_a_draining_engine_finishes_what_it_has() -> None:
    """New requests are refused, running and waiting ones answered."""
    engine = build(max_rows=1)
    engine.submit(greedy("a", _prompt(5), 4))
    engine.submit(greedy("b", _prompt(6), 4))
    engine.drain()
    with pytest.raises(Draining):
        engine.submit(greedy("c", _prompt(5), 4))
    answers = drive(engine)
    assert answers["a"].tokens == reference(_prompt(5), 4)
    assert answers["b"].tokens == reference(_prompt(6), 4)
    assert engine.status.draining


def test_the_status_counts() -> None:
    """The numbers of a snapshot are those of the work done, and do not move afterwards."""
    engine = build()
    drive(engine, greedy("1", _prompt(20), 5))
    status = engine.status
    drive(engine, greedy("2", _prompt(20), 5))
    later = engine.status
    assert (status.counters.finished, later.counters.finished) == (1, 2)
    assert later.counters.prompt_tokens == 40
    assert later.counters.restored_tokens == 19
    assert later.counters.prefilled_tokens == 21
    assert later.counters.decoded_tokens == 10
    assert later.last_step_s >= status.last_step_s
    assert later.slab_bytes > 0


def test_the_times_to_the_first_token_add_up() -> None:
    """Queue, restore and prefill are what passed between submission and the first token."""
    ticks = iter(range(1000))
    engine = build()
    engine._admission._clock = engine._scheduler._clock = lambda: float(next(ticks))
    engine._committer._clock = engine._scheduler._clock
    answer: Answer = drive(engine, greedy("r", _prompt(20), 2))["r"]
    assert answer.started is not None
    timing = answer.started.timing
    assert (timing.queue_s, timing.restore_s, timing.prefill_s) == (2, 0, 1)


def test_an_idle_engine_checks_its_pool_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check costs nothing while there is work, nor again while nothing happens."""
    checks: list[None] = []
    check = Pool.check
    monkeypatch.setattr(Pool, "check", lambda pool: checks.append(check(pool)))
    engine = build()
    engine.submit(greedy("r", _prompt(5), 4))
    while engine.wait(0):
        assert not checks
        engine.step()
    assert not engine.wait(0)
    assert len(checks) == 1


def test_steps_and_seals_leave_the_slab_where_it_is() -> None:
    """Decoding, sealing and restoring touch the slab's own memory: nothing copies it."""
    engine = build(max_rows=2)
    drive(engine, greedy("a", _prompt(20), 2), greedy("b", _prompt(30), 2))
    before = _addresses(engine)
    drive(engine, greedy("c", _prompt(40), 30), greedy("d", _prompt(30), 40))
    assert engine.status.pool.sealed_blocks > 8
    assert _addresses(engine) == before


def test_a_closed_engine_has_given_everything_back(tmp_path: Path) -> None:
    """Closing in the middle of work releases leases and pool; a second close does nothing."""
    engine = build(pool=open_pool(tmp_path / "pool"), max_rows=1)
    engine.submit(greedy("a", _prompt(30), 50))
    engine.submit(greedy("b", _prompt(30), 50))
    engine.step()
    engine.close()
    engine.close()
    open_pool(tmp_path / "pool").close()
