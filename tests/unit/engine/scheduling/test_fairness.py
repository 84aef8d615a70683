"""Who waits for whom, counted in chunks of the tiny engine: no clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_engine import Answers, assert_idle, build, greedy, open_pool, reference

from dovecote_engine.scheduling.turns import PATIENCE

if TYPE_CHECKING:
    from dovecote_engine.engine import Engine
    from dovecote_engine.request import Priority

CHUNK = 32
LONG = 8 * CHUNK
SHORT = 20


def _prompt(count: int, seed: int) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


def _engine(**options: Any) -> Engine:
    pool = open_pool(size_bytes=64 << 20)
    # A chunk is CHUNK tokens however fast the machine is.
    return build(
        pool=pool,
        max_chunk_tokens=CHUNK,
        max_waiting=100,
        gap_ratio=1e9,
        chunk_seconds=1e9,
        **options,
    )


def _submit_long(
    engine: Engine, count: int, agent: str | None, priority: Priority = "interactive"
) -> None:
    for number in range(count):
        name = f"{agent}{priority[0]}{number}"
        engine.submit(greedy(name, _prompt(LONG, 7 * number + len(name)), 4, agent, priority))


def _run_until_started(engine: Engine, name: str, answers: Answers) -> int:
    """The chunks that were computed for others between now and the first token of `name`."""
    others = 0
    while answers[name].started is None:
        before = {row.id: row.length for row in engine._scheduler.rows}
        tokens = engine.status.counters.prefilled_tokens
        answers.step(engine)
        own = [row for row in engine._scheduler.rows if row.id == name]
        moved = own and own[0].length > before.get(name, 0)
        others += engine.status.counters.prefilled_tokens > tokens and not moved
    return others


def _finish(engine: Engine, answers: Answers) -> None:
    while engine.wait(0):
        answers.step(engine)
    assert_idle(engine)


@pytest.mark.parametrize("max_rows", (1, 2, 8))
def test_many_long_prompts_of_one_agent_do_not_hold_up_another(max_rows: int) -> None:
    """With 32 of them queued, another agent's first token comes after at most one chunk of theirs.

    With a single row it comes after the one that has the row.
    """
    engine, answers = _engine(max_rows=max_rows), Answers()
    _submit_long(engine, 32, "greedy")
    for _ in range(3):
        answers.step(engine)
    engine.submit(greedy("short", _prompt(SHORT, 1), 3, "modest"))
    others = _run_until_started(engine, "short", answers)
    assert others <= (1 if max_rows > 1 else LONG // CHUNK)
    assert not answers["greedyi1"].tokens
    _finish(engine, answers)
    assert answers["short"].tokens == reference(_prompt(SHORT, 1), 3)
    assert all(answer.finished for answer in answers.values())


def test_many_requests_without_agent_do_not_hold_up_an_agent() -> None:
    """All rows are taken by long anonymous prompts, yet an agent's request gets a row, and the
    next chunk.
    """
    engine, answers = _engine(max_rows=4), Answers()
    _submit_long(engine, 32, None)
    for _ in range(3):
        answers.step(engine)
    assert engine.status.running == 4
    engine.submit(greedy("short", _prompt(SHORT, 1), 3, "modest"))
    assert _run_until_started(engine, "short", answers) <= 1
    assert engine.status.running == 5
    _finish(engine, answers)


def test_long_answers_without_agent_do_not_hold_up_an_agent() -> None:
    """The row beyond the others is there although every one of them decodes for long."""
    engine, answers = _engine(max_rows=2), Answers()
    for name in "abcd":
        engine.submit(greedy(name, _prompt(8, ord(name)), 100))
    while not answers["b"].tokens:
        answers.step(engine)
    engine.submit(greedy("short", _prompt(SHORT, 1), 3, "modest"))
    assert _run_until_started(engine, "short", answers) == 0
    assert len(answers["a"].tokens) < 10
    _finish(engine, answers)


def test_there_is_one_row_beyond_the_others_and_only_in_a_flood() -> None:
    """A second agent waits for a row, and agents alone never have more than max_rows."""
    engine, answers = _engine(max_rows=2), Answers()
    for name in "abcd":
        engine.submit(greedy(name, _prompt(8, ord(name)), 50))
    answers.step(engine)
    for agent in ("x", "y", "z"):
        engine.submit(greedy(f"of {agent}", _prompt(8, ord(agent)), 50, agent))
    most = {"rows": 0, "agents": 0}
    while engine.wait(0):
        answers.step(engine)
        rows = engine._scheduler.rows
        most["rows"] = max(most["rows"], len(rows))
        agents = [row for row in rows if row.request.agent is not None]
        if len(agents) == len(rows):
            most["agents"] = max(most["agents"], len(rows))
    assert most == {"rows": 3, "agents": 2}
    assert_idle(engine)


def test_requests_without_agent_may_have_every_row_while_nobody_else_waits() -> None:
    """The bound is for those who wait, not for an idle machine."""
    engine, answers = _engine(max_rows=4), Answers()
    _submit_long(engine, 8, None)
    answers.step(engine)
    assert engine.status.running == 4
    _finish(engine, answers)


def test_agents_share_prefill_evenly() -> None:
    """While several long prompts of agents are computed, none is ahead by more than a chunk."""
    engine, answers = _engine(max_rows=4), Answers()
    for agent in "abc":
        engine.submit(greedy(agent, _prompt(LONG, ord(agent)), 2, agent))
    while not any(answers[agent].started for agent in "abc"):
        answers.step(engine)
        lengths = [row.length for row in engine._scheduler.rows]
        assert max(lengths) - min(lengths) <= CHUNK
    _finish(engine, answers)


def test_who_rested_has_saved_nothing_up() -> None:
    """An agent that comes late gets a chunk at once and then its share, not what it missed."""
    engine, answers = _engine(max_rows=4), Answers()
    engine.submit(greedy("early", _prompt(15 * CHUNK, 1), 2, "early"))
    for _ in range(6):
        answers.step(engine)
    engine.submit(greedy("late", _prompt(LONG, 2), 2, "late"))
    assert _run_until_started(engine, "late", answers) == LONG // CHUNK - 1
    _finish(engine, answers)


def test_one_agents_requests_run_in_order_and_agents_in_parallel() -> None:
    """No request of an agent starts before the one before it ended."""
    engine, answers = _engine(max_rows=4), Answers()
    for number in range(3):
        for agent in "ab":
            engine.submit(greedy(f"{agent}{number}", _prompt(30, number), 5, agent))
    together = set()
    while engine.wait(0):
        answers.step(engine)
        agents = [row.request.agent for row in engine._scheduler.rows]
        assert len(agents) == len(set(agents))
        together.add(len(agents))
        for agent in "ab":
            done = [answers[f"{agent}{number}"].is_over for number in range(3)]
            assert done == sorted(done, reverse=True)
    assert max(together) == 2


def test_the_background_gets_what_is_left() -> None:
    """An interactive prompt is computed chunk after chunk while a background one stands still."""
    engine, answers = _engine(max_rows=4), Answers()
    _submit_long(engine, 1, "batch", "background")
    answers.step(engine)
    engine.submit(greedy("user", _prompt(4 * CHUNK, 1), 2, "user"))
    assert _run_until_started(engine, "user", answers) == 0
    _finish(engine, answers)


def test_the_background_is_never_starved() -> None:
    """However much interactive work there is, one start and one chunk in PATIENCE are its own."""
    engine, answers = _engine(max_rows=2), Answers()
    _submit_long(engine, 1, "batch", "background")
    for number in range(40):
        engine.submit(greedy(f"u{number}", _prompt(LONG, number), 2, f"user {number}"))
    others = _run_until_started(engine, "batchb0", answers)
    assert engine.status.waiting > 0
    chunks = LONG // CHUNK
    assert PATIENCE < others <= PATIENCE * chunks + PATIENCE * chunks
    _finish(engine, answers)


def test_the_background_takes_half_of_the_rows_while_others_are_about() -> None:
    """It may have all of them on an idle machine, and leaves half once an interactive one runs."""
    engine, answers = _engine(max_rows=4), Answers()
    for number in range(6):
        engine.submit(greedy(f"b{number}", _prompt(8, number), 6, f"b{number}", "background"))
    engine.submit(greedy("user", _prompt(8, 9), 100, "user"))
    answers.step(engine)
    assert [row.id for row in engine._scheduler.rows] == ["user", "b0", "b1"]
    _finish(engine, answers)
    for number in range(6):
        engine.submit(greedy(f"c{number}", _prompt(8, number), 6, f"c{number}", "background"))
    answers.step(engine)
    assert engine.status.running == 4
    _finish(engine, answers)


def test_a_background_flood_does_not_hold_up_an_interactive_request() -> None:
    """Every row is taken by background answers, yet an agent's request starts at once."""
    engine, answers = _engine(max_rows=2), Answers()
    for number in range(4):
        engine.submit(greedy(f"b{number}", _prompt(8, number), 100, f"b{number}", "background"))
    while not answers["b1"].tokens:
        answers.step(engine)
    engine.submit(greedy("user", _prompt(SHORT, 1), 3, "user"))
    assert _run_until_started(engine, "user", answers) == 0
    _finish(engine, answers)
