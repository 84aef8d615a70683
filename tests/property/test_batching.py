"""Laws of batching: whatever joins, leaves or is cancelled, nobody's tokens change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_engine import Answers, assert_idle, build, greedy, open_pool, reference

from dovecote_engine.errors import Overloaded

if TYPE_CHECKING:
    from dovecote_engine.engine import Engine
    from dovecote_engine.request import Request

# Prompts are prefixes of a few texts, so that they share blocks and diverge inside them.
TEXTS = [tuple((start + step * n) % 100 for n in range(120)) for start, step in ((3, 7), (3, 11))]

_prompts = st.builds(
    lambda text, common, tail: (*text[:common], *tail),
    st.sampled_from(TEXTS),
    st.integers(1, 110),
    st.lists(st.integers(0, 99), max_size=3).map(tuple),
)
_submissions = st.tuples(
    st.just("submit"), _prompts, st.integers(1, 20), st.sampled_from([None, "a", "b"])
)
_cancels = st.tuples(st.just("cancel"), st.integers(0, 30))
_steps = st.tuples(st.just("step"), st.integers(1, 6))


def _apply(engine: Engine, action: tuple[object, ...], requests: list[Request]) -> None:
    match action:
        case ("submit", tuple(prompt), int(max_tokens), agent):
            request = greedy(
                f"r{len(requests)}",
                prompt,
                max_tokens,
                agent,  # type: ignore[arg-type]
            )
            engine.submit(request)
            requests.append(request)
        case ("cancel", int(number)):
            engine.cancel(f"r{number}")


def _check(request: Request, answers: Answers) -> None:
    answer = answers[request.id]
    assert answer.failed is None
    assert answer.finished is not None
    assert request.max_tokens is not None
    wanted = reference(request.prompt, request.max_tokens)
    assert answer.tokens == wanted[: len(answer.tokens)]
    if answer.finished.reason != "cancelled":
        assert answer.tokens == wanted


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(_submissions, _steps, _cancels), max_size=30),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([1 << 18, 8 << 20]),
)
def test_joins_leaves_and_cancels_change_nobodys_tokens(
    actions: list[tuple[object, ...]], max_rows: int, chunk_tokens: int, pool_bytes: int
) -> None:
    """Every answer is a prefix of the one that mlx-lm gives alone, and all of it if not cancelled.

    A pool of few frames evicts and refuses on the way; that changes nothing either.
    """
    engine = build(
        pool=open_pool(size_bytes=pool_bytes), max_rows=max_rows, max_chunk_tokens=chunk_tokens
    )
    requests: list[Request] = []
    answers = Answers()
    for action in actions:
        try:
            _apply(engine, action, requests)
        except Overloaded:
            continue
        if action[0] == "step":
            for _ in range(int(str(action[1]))):
                answers.step(engine)
                engine._pool.check()
    while engine.wait(0):
        answers.step(engine)
    assert_idle(engine)
    for request in requests:
        _check(request, answers)
    engine.close()
