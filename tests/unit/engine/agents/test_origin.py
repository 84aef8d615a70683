"""Where the cached part of a prompt came from, told by the real engine over a small model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_engine import BLOCK, build, drive, greedy, open_pool

from dovecote_cache import AgentBook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dovecote_engine.engine import Engine
    from dovecote_engine.request import Started

FIRST = tuple(range(40))


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = build(book=AgentBook.in_memory())
    yield made
    made.close()


def start(engine: Engine, agent: str | None, prompt: Sequence[int]) -> Started:
    """How a request of that agent began; its one token is not part of the agent's chain."""
    name = f"{agent}-{len(prompt)}"
    started = drive(engine, greedy(name, prompt, 1, agent))[name].started
    assert started is not None
    return started


def told(started: Started) -> tuple[int, int, str | None]:
    return started.cached_tokens, started.own_tokens, started.missed


def test_an_agent_s_first_prompt_is_new(engine: Engine) -> None:
    assert told(start(engine, "a", FIRST)) == (0, 0, "new")


def test_a_history_that_goes_on_is_the_agent_s_own(engine: Engine) -> None:
    """All of it is found, and nothing is missed; nor by the same prompt once more."""
    start(engine, "a", FIRST)
    assert told(start(engine, "a", (*FIRST, 50, 51, 52))) == (40, 40, None)
    assert told(start(engine, "a", FIRST)) == (39, 39, None)


def test_what_others_computed_is_shared(engine: Engine) -> None:
    """For a new agent, and for one that has no name."""
    start(engine, "a", FIRST)
    assert told(start(engine, "b", (*FIRST, 60))) == (40, 0, "new")
    assert told(start(engine, None, (*FIRST, 61))) == (40, 0, "new")


@pytest.mark.parametrize("common", (0, BLOCK, 2 * BLOCK + 3))
def test_a_prompt_that_leaves_the_history_diverges_there(engine: Engine, common: int) -> None:
    """To the token: the part of a block in which it does is still the agent's own."""
    start(engine, "a", FIRST)
    other = (*FIRST[:common], *range(60, 90))
    assert told(start(engine, "a", other)) == (common, common, "diverged")


def test_a_prompt_that_goes_over_to_another_s_history_is_both(engine: Engine) -> None:
    other = (*FIRST[:16], *range(60, 84))
    start(engine, "a", FIRST)
    start(engine, "b", other)
    assert told(start(engine, "a", (*other, 90))) == (40, 16, "diverged")


def test_what_the_pool_had_no_room_for_is_evicted() -> None:
    """It is not the prompt's fault."""
    engine = build(book=AgentBook.in_memory(), pool=open_pool(size_bytes=100_000))
    start(engine, "a", FIRST)
    for number in range(20):
        start(engine, None, tuple((number * 7 + step) % 100 for step in range(60)))
    cached, own, missed = told(start(engine, "a", (*FIRST, 50)))
    assert cached == own < 40
    assert missed == "evicted"
    engine.close()
