"""Laws of batching: whatever joins, leaves or is cancelled, nobody's tokens change."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_engine import LOADED, Answers, Kind, assert_idle, build, greedy, open_pool, reference

from dovecote_cache import AgentBook
from dovecote_engine.errors import AgentBusy, AgentExists, Overloaded, UnknownAgent

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
    choices: int


@dataclass(frozen=True)
class Fork:
    """A copy of an agent's chain under another name, or over what that name was."""

    agent: str
    new_agent: str


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
    max_rows: int
    requests: list[Request] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)

    def tell(self, action: Action) -> None:
        """Does what the action says. A refusal leaves everything as it was."""
        match action:
            case Submit():
                self._submit(action)
            case Cancel(number):
                self.engine.cancel(f"r{number}")
            case Fork():
                self._fork(action)
            case Step(count):
                for _ in range(count):
                    self.engine.wait(0)
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
        request = replace(request, choices=min(action.choices, self.max_rows))
        before = self.engine.status.pool
        try:
            self.engine.submit(request)
        except Overloaded as error:
            assert 1 <= error.retry_after_s <= 60
            assert self.engine.status.pool == before
        else:
            self.requests.append(request)

    def _fork(self, action: Fork) -> None:
        """The target makes room if it can; what runs is not disturbed either way."""
        before = self.engine.status.pool
        with suppress(UnknownAgent, AgentBusy):
            self.engine.agents.delete(action.new_agent)
        with suppress(UnknownAgent, AgentExists):
            forked = self.engine.agents.fork(action.agent, action.new_agent)
            assert forked.tokens == self.engine.agents.get(action.agent).tokens
        after = self.engine.status.pool
        assert (after.leased, after.promised) == (before.leased, before.promised)

    def _check_rows(self) -> None:
        """Each agent has at most one request in rows, and in order: none overtakes its elder."""
        rows = [row.request for row in self.engine._scheduler.rows if not row.choice]
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


Action = Submit | Fork | Cancel | Step
_agents = st.sampled_from(["a", "b", "c"])
_actions = st.one_of(
    st.builds(
        Submit,
        _prompts,
        st.integers(1, 20),
        st.sampled_from([None, None, "a", "b", "c"]),
        st.sampled_from(["interactive", "interactive", "background"]),
        st.sampled_from([1, 1, 1, 2, 3]),
    ),
    st.builds(Fork, _agents, _agents),
    st.builds(Cancel, st.integers(0, 30)),
    st.builds(Step, st.integers(1, 6)),
)


def _check(request: Request, answers: Answers, kind: Kind) -> None:
    assert request.max_tokens is not None
    wanted = reference(request.prompt, request.max_tokens, kind)
    names = [request.id, *(f"{request.id}/{choice}" for choice in range(1, request.choices))]
    found = [answers[name] for name in names if name in answers]
    assert sum(answer.finished is not None for answer in found) == 1
    for answer in found:
        assert answer.failed is None
        assert answer.tokens == wanted[: len(answer.tokens)]
        if answer.reason != "cancelled":
            assert answer.tokens == wanted
    assert len(found) == request.choices or found[0].reason == "cancelled"


@pytest.mark.parametrize("kind", ("plain", "windowed", "recurrent", "hybrid"))
@settings(max_examples=examples(30), deadline=None)
@given(
    st.lists(_actions, max_size=30),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([1 << 18, 8 << 20]),
    st.sampled_from([60, 1 << 16]),
    st.sampled_from([1e-9, 60]),
)
def test_joins_leaves_forks_and_cancels_change_nobodys_tokens(
    kind: Kind,
    actions: list[Action],
    max_rows: int,
    chunk_tokens: int,
    pool_bytes: int,
    waiting_tokens: int,
    idle_s: float,
) -> None:
    """Whoever is let in ends exactly once, with the tokens that mlx-lm gives it alone, or the
    first of them if it is cancelled; then rows, leases and promises are back. Requests of several
    choices fork their rows when their prompt is complete, agents fork and go while others run.

    A pool of few frames evicts and refuses on the way, and an engine that finds nothing to do may
    write short blocks and give its slab back; that changes nothing either. And so it is
    with layers that see a window, for a model that cannot be cached, and for one whose recurrent
    state is cached at the ends of blocks.
    """
    loaded = LOADED[kind]()
    engine = build(
        loaded,
        open_pool(size_bytes=pool_bytes, geometry=loaded.geometry),
        AgentBook.in_memory(),
        max_rows=max_rows,
        max_chunk_tokens=chunk_tokens,
        max_waiting_tokens=waiting_tokens,
        flush_seconds=idle_s,
        slab_idle_seconds=idle_s,
        slab_idle_bytes=0,
    )
    story = Story(engine, max_rows)
    for action in actions:
        story.tell(action)
    story.finish()
    for request in story.requests:
        _check(request, story.answers, kind)
    engine.close()
