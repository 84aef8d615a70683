from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tiny_engine import (
    Answers,
    assert_idle,
    build,
    cached_tokens,
    drive,
    greedy,
    recurrent,
    recurrent_model,
    reference,
)

from dovecote_cache import AgentBook
from dovecote_engine.request import Request, Sampling
from dovecote_engine.rows.row_caches import RowCaches, StateCost

if TYPE_CHECKING:
    import pytest


def _prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


def test_a_model_that_cannot_be_cached_answers_as_mlx_lm_does() -> None:
    """In chunks, and again: every turn computes the whole prompt, and says so."""
    engine = build(recurrent(), max_chunk_tokens=8)
    prompt = _prompt(37)
    for name in ("first", "again"):
        answer = drive(engine, greedy(name, prompt, 12))[name]
        assert answer.tokens == reference(prompt, 12, "recurrent")
        assert cached_tokens(answer) == 0
    assert engine.model.uncached == "layers that keep ArraysCache cannot be cached yet"
    assert engine.status.uncached == engine.model.uncached


def test_rows_that_cannot_be_cached_run_beside_each_other() -> None:
    """Rows that join, leave, move and are cancelled leave no trace in anyone's tokens."""
    engine = build(recurrent(), max_rows=4, max_chunk_tokens=8)
    prompts = {f"r{length}": _prompt(length, length) for length in (3, 41, 17, 26, 9)}
    requests = [greedy(name, prompt, 6 + len(prompt)) for name, prompt in prompts.items()]
    answers = Answers()
    for request in requests:
        engine.submit(request)
    steps = 0
    while engine.wait(0):
        answers.step(engine)
        steps += 1
        if steps == 12:
            engine.cancel("r41")
    assert_idle(engine)
    for request in requests:
        wanted = reference(request.prompt, request.max_tokens or 0, "recurrent")
        found = answers[request.id].tokens
        assert found == wanted[: len(found)]
        assert found == wanted or request.id == "r41"


def test_choices_of_an_uncached_prompt_share_its_prefill() -> None:
    """Each choice goes on from a copy of the state after the prompt."""
    engine = build(recurrent())
    prompt = _prompt(20)
    request = Request("r", prompt, 8, Sampling(temperature=0.0), choices=3)
    answers = drive(engine, request)
    wanted = reference(prompt, 8, "recurrent")
    assert [answers[name].tokens for name in ("r", "r/1", "r/2")] == [wanted] * 3
    assert engine.status.counters.prefilled_tokens == len(prompt)


def test_an_agent_of_an_uncached_model_is_not_listed() -> None:
    """There is no chain that its name could stand over."""
    engine = build(recurrent(), book=AgentBook.in_memory())
    drive(engine, greedy("r", _prompt(20), 4, agent="atlas"))
    assert engine.agents.list() == []


def test_a_row_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that raises ends its own request; the row is empty for the next one."""
    engine = build(recurrent())
    forward = engine._runner._forward
    monkeypatch.setattr(forward, "last_chunk", lambda *_: 1 / 0)
    assert drive(engine, greedy("bad", _prompt(5), 4))["bad"].failed is not None
    monkeypatch.undo()
    answer = drive(engine, greedy("good", _prompt(5), 4))["good"]
    assert answer.tokens == reference(_prompt(5), 4, "recurrent")


def test_rows_are_refused_beyond_the_budget() -> None:
    """A state of one size for all lengths bounds the rows, not their length."""
    cost = StateCost.measure(recurrent_model())
    assert cost.token_bytes == 0
    assert cost.row_bytes > 0
    rows = RowCaches(recurrent_model(), 3 * cost.row_bytes, 8)
    assert rows.can_reserve(3, 1 << 20)
    assert not rows.can_reserve(4, 1)
    assert rows.row_limit_tokens > 1 << 20
