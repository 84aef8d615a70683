"""Laws of batching: whatever joins, leaves or is cancelled, nobody's tokens change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_engine import Answers, assert_idle, build, greedy, open_pool, reference

from dovecote_engine.errors import Overloaded

if TYPE_CHECKING:
    from dovecote_engine.engine import Engine
    from dovecote_engine.request import Priority, Request

# Prompts are prefixes of a few texts, so that they share blocks and diverge inside them.
TEXTS = [tuple((start + step * n) % 100 for n in range(120)) for start, step in ((3, 7), (3, 11))]

_prompts = st.builds(
    lambda text, common, tail: (*text[:common], *tail),
    st.sampled_from(TEXTS),
    st.integers(1, 110),
    st.lists(st.integers(0, 99), max_size=3).map(tuple),
)


@dataclass(frozen=True)
class Submit:
    """A new request."""

    prompt: tuple[int, ...]
    max_tokens: int
    agent: str | None
    priority: Priority


@dataclass(frozen=True)
class Cancel:
    """The end of one of the requests, whatever it does."""

    number: int


@dataclass(frozen=True)
class Step:
    """The engine goes on."""

    count: int


@dataclass
class Story:
    """An engine, who was let in, and what was answered."""

    engine: Engine
    requests: list[Request] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)

    def tell(self, action: Submit | Cancel | Step) -> None:
        """Does what the action says. A refusal leaves everything as it was."""
        match action:
            case Submit():
                self._submit(action)
            case Cancel(number):
                self.engine.cancel(f"r{number}")
            case Step(count):
                for _ in range(count):
                    self.answers.step(self.engine)
                    self.engine._pool.check()
                    self._check_rows()

    def finish(self) -> None:
        """Steps until nothing is left to do."""
        while self.engine.wait(0):
            self.answers.step(self.engine)
        assert_idle(self.engine)

    def _submit(self, action: Submit) -> None:
        request = greedy(
            f"r{len(self.requests)}",
            action.prompt,
            action.max_tokens,
            action.agent,
            action.priority,
        )
        before = self.engine.status.pool
        try:
            self.engine.submit(request)
        except Overloaded as error:
            assert 1 <= error.retry_after_s <= 60
            assert self.engine.status.pool == before
        else:
            self.requests.append(request)

    def _check_rows(self) -> None:
        """Each agent has at most one row, and one in order: none overtakes its elder."""
        rows = [row.request for row in self.engine._scheduler.rows]
        agents = [request.agent for request in rows if request.agent is not None]
        assert len(agents) == len(set(agents))
        for running in rows:
            if running.agent is not None:
                elders = self.requests[: self.requests.index(running)]
                assert all(
                    self.answers[elder.id].is_over
                    for elder in elders
                    if elder.agent == running.agent
                )


_actions = st.one_of(
    st.builds(
        Submit,
        _prompts,
        st.integers(1, 20),
        st.sampled_from([None, None, "a", "b", "c"]),
        st.sampled_from(["interactive", "interactive", "background"]),
    ),
    st.builds(Cancel, st.integers(0, 30)),
    st.builds(Step, st.integers(1, 6)),
)


def _check(request: Request, answers: Answers) -> None:
    answer = answers[request.id]
    assert answer.failed is None
    assert answer.finished is not None
    assert request.max_tokens is not None
    wanted = reference(request.prompt, request.max_tokens)
    assert answer.tokens == wanted[: len(answer.tokens)]
    if answer.finished.reason != "cancelled":
        assert answer.tokens == wanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(_actions, max_size=30),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([1 << 18, 8 << 20]),
    st.sampled_from([60, 1 << 16]),
)
def test_joins_leaves_and_cancels_change_nobodys_tokens(
    actions: list[Submit | Cancel | Step],
    max_rows: int,
    chunk_tokens: int,
    pool_bytes: int,
    waiting_tokens: int,
) -> None:
    """Whoever is let in ends exactly once, with the tokens that mlx-lm gives it alone, or the
    first of them if it is cancelled; then rows, leases and promises are back.

    A pool of few frames evicts and refuses on the way; that changes nothing either.
    """
    engine = build(
        pool=open_pool(size_bytes=pool_bytes),
        max_rows=max_rows,
        max_chunk_tokens=chunk_tokens,
        max_waiting_tokens=waiting_tokens,
    )
    story = Story(engine)
    for action in actions:
        story.tell(action)
    story.finish()
    for request in story.requests:
        _check(request, story.answers)
    engine.close()
