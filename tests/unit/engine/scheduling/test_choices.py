"""Several choices of one request: one prefill, rows of their own, one fate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tiny_engine import BLOCK, Answers, assert_idle, build, drive, greedy, open_pool, reference

from dovecote_engine.errors import BadRequest, Overloaded
from dovecote_engine.request import ChoiceFinished, Failed, Finished, Request, Sampling

if TYPE_CHECKING:
    from dovecote_engine.engine import Engine
    from dovecote_engine.request import Event

PROMPT = tuple((3 + 7 * n) % 100 for n in range(30))


def _ask(choices: int, name: str = "r", max_tokens: int = 6, seed: int | None = None) -> Request:
    sampling = Sampling(0.0) if seed is None else Sampling(seed=seed)
    return Request(name, PROMPT, max_tokens, sampling, choices=choices)


def _tokens(answers: Answers, choices: int, name: str = "r") -> list[list[int]]:
    names = [name, *(f"{name}/{choice}" for choice in range(1, choices))]
    return [answers[each].tokens for each in names]


def _run(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while engine.wait(0):
        events += engine.step()
    assert_idle(engine)
    return events


@pytest.mark.parametrize("choices", (1, 2, 5, 8))
def test_greedy_choices_are_equal_and_computed_once(choices: int) -> None:
    """Each is the answer that the prompt has alone, and the prompt went through the model once."""
    engine = build()
    answers = drive(engine, _ask(choices))
    assert _tokens(answers, choices) == [reference(PROMPT, 6)] * choices
    assert engine.status.counters.prefilled_tokens == len(PROMPT)
    assert engine.status.counters.prompt_tokens == len(PROMPT)


def test_usage_counts_the_prompt_once_and_sums_the_choices() -> None:
    """It comes with the last event of the request, whichever choice that is."""
    engine = build()
    engine.submit(_ask(3))
    *_, last = events = _run(engine)
    endings = [event for event in events if isinstance(event, ChoiceFinished | Finished)]
    assert [ending.choice for ending in endings] == [0, 1, 2]
    assert isinstance(last, Finished)
    usage = last.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (30, 0, 18)


def test_cached_tokens_are_those_of_the_one_prompt() -> None:
    """The second time the prompt comes from the pool, once for all choices."""
    engine = build()
    drive(engine, _ask(2, "first"))
    engine.submit(_ask(3))
    *_, last = _run(engine)
    assert isinstance(last, Finished)
    assert last.usage.cached_tokens == len(PROMPT) - 1
    assert engine.status.counters.prefilled_tokens == len(PROMPT) + 1


def test_choices_of_a_seed_differ_and_repeat() -> None:
    """Each choice draws from a stream of its own; the first is what one choice alone would be."""
    first = _tokens(drive(build(), _ask(4, seed=9)), 4)
    assert len({tuple(tokens) for tokens in first}) == 4
    beside = drive(build(), greedy("other", PROMPT[:9], 12), _ask(4, seed=9))
    assert _tokens(beside, 4) == first
    assert _tokens(drive(build(), _ask(1, seed=9)), 1) == first[:1]


def test_choices_wait_for_rows_for_all_of_them() -> None:
    """They start together, in order with the others; nobody's tokens change."""
    engine = build(max_rows=4)
    requests = [greedy(f"g{n}", PROMPT[n:], 5 + n) for n in range(2)]
    answers = drive(engine, *requests, _ask(3), greedy("last", PROMPT[4:], 4))
    assert _tokens(answers, 3) == [reference(PROMPT, 6)] * 3
    for request in requests:
        assert answers[request.id].tokens == reference(request.prompt, request.max_tokens or 0)
    assert answers["last"].tokens == reference(PROMPT[4:], 4)


def test_what_each_choice_computed_is_kept() -> None:
    """A later prompt finds its beginning whichever choice it goes on from."""
    engine = build()
    answers = drive(engine, _ask(2, max_tokens=2 * BLOCK, seed=5))
    for tokens in _tokens(answers, 2):
        history = (*PROMPT, *tokens[:-1])
        answer = drive(engine, greedy("next", (*history, 1), 1))["next"]
        assert answer.finished is not None
        assert answer.finished.usage.cached_tokens == len(history)


def test_a_cancel_ends_all_choices(subtests: pytest.Subtests) -> None:
    """In the queue, while the prompt is computed, and while the choices are decoded."""
    for steps in (0, 1, 3, 6):
        with subtests.test(steps=steps):
            engine = build(max_chunk_tokens=8)
            engine.submit(_ask(3, max_tokens=50))
            for _ in range(steps):
                engine.step()
            engine.cancel("r")
            *_, last = events = _run(engine)
            reasons = {e.reason for e in events if isinstance(e, ChoiceFinished | Finished)}
            assert reasons == {"cancelled"}
            assert isinstance(last, Finished)
            assert engine.status.counters.cancelled == 1


def test_a_cancel_after_some_choices_have_ended_ends_the_rest() -> None:
    """The ones that are over stay as they are."""
    wanted = _tokens(drive(build(), _ask(3, seed=9, max_tokens=40)), 3)
    only_first = wanted[0][0]
    engine = build()
    engine.submit(replace(_ask(3, seed=9, max_tokens=40), stop=(f"<{only_first}>",)))
    events: list[Event] = []
    while not any(isinstance(event, ChoiceFinished) for event in events):
        events += engine.step()
    engine.cancel("r")
    events += _run(engine)
    endings = [event for event in events if isinstance(event, ChoiceFinished | Finished)]
    assert (endings[0].reason, endings[0].stop) == ("stop", f"<{only_first}>")
    assert {(ending.reason, ending.stop) for ending in endings[1:]} == {("cancelled", None)}
    assert len(endings) == 3


def test_a_fault_of_one_choice_is_the_end_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """One Failed for the request; the others in the batch go on."""
    engine = build()
    engine.submit(greedy("good", PROMPT, 20))
    engine.submit(_ask(3, max_tokens=20, seed=1))
    events: list[Event] = []
    while engine.status.running < 4 or engine._scheduler.decoding < 4:
        events += engine.step()
    unlucky = next(row for row in engine._scheduler.rows if row.choice == 1)
    monkeypatch.setattr(unlucky.sampler, "draw", None)
    events += _run(engine)
    failed = [event for event in events if isinstance(event, Failed)]
    assert [each.request_id for each in failed] == ["r"]
    finished = [event for event in events if isinstance(event, Finished | ChoiceFinished)]
    assert [each.request_id for each in finished] == ["good"]
    assert engine.status.counters.failed == 1


def test_more_choices_than_rows_are_refused() -> None:
    """They could never run side by side."""
    engine = build(max_rows=4)
    with pytest.raises(BadRequest) as raised:
        engine.submit(_ask(5))
    assert raised.value.field == "n"
    assert_idle(engine)


def test_more_choices_than_memory_are_refused() -> None:
    """Two rows of that length fit into the slab; three do not."""
    row_bytes = 512 * 2 * 2 * 2 * 32 * 4
    engine = build(slab_bytes=2 * row_bytes)
    engine.submit(replace(_ask(2, "two"), max_tokens=480))
    with pytest.raises(BadRequest) as raised:
        engine.submit(replace(_ask(3), max_tokens=480))
    assert raised.value.field == "n"
    engine.cancel("two")
    _run(engine)


def test_frames_are_reserved_for_all_choices_or_none() -> None:
    """Where there is no room for all, nothing is reserved and the caller is told to come back."""
    engine = build(pool=open_pool(size_bytes=1 << 19))
    frames = engine.status.pool.frames
    half = frames * BLOCK // 2
    engine.submit(greedy("long", PROMPT, min(half - len(PROMPT), 480)))
    before = engine.status.pool.promised
    with pytest.raises(Overloaded):
        engine.submit(_ask(4, max_tokens=half // 2))
    assert engine.status.pool.promised == before
    engine.cancel("long")
    _run(engine)


def test_a_pool_too_small_for_all_choices_still_serves_them() -> None:
    """What does not fit is computed and not kept."""
    engine = build(pool=open_pool(size_bytes=1 << 17))
    assert engine.status.pool.frames * BLOCK < 4 * (len(PROMPT) + 60)
    answers = drive(engine, _ask(4, max_tokens=60))
    assert _tokens(answers, 4) == [reference(PROMPT, 60)] * 4


def test_closing_gives_the_leases_of_waiting_choices_back() -> None:
    """The pool can be closed, which it cannot while a lease is open."""
    engine = build()
    engine.submit(_ask(3))
    engine.close()
