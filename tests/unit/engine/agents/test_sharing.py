"""Which blocks of a chain are others' too: the quick way for one agent and that for all agree."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from slabs import BLOCK, GEOMETRY, Slab, open_pool

from dovecote_cache import AgentBook
from dovecote_engine.agents.sharing import shared_blocks, shared_blocks_of_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dovecote_cache import Pool


@pytest.fixture
def book() -> Iterator[AgentBook]:
    with AgentBook.in_memory() as book:
        yield book


@pytest.fixture
def pool() -> Iterator[Pool]:
    with open_pool(None, frames=200) as pool:
        yield pool


def take_turn(pool: Pool, book: AgentBook, name: str, tokens: Sequence[int]) -> None:
    ids = np.array(tokens, np.uint32)
    slab = Slab(rows=1, geometry=GEOMETRY)
    with pool.lease(len(ids)) as lease, slab.planes() as planes:
        lease.match(ids)
        lease.seal_short(ids[lease.whole_tokens :], planes)
        book.record(name, "m", lease.chain, 1.0)


def shared_of_each(pool: Pool, book: AgentBook) -> dict[str, int]:
    agents = book.list("m")
    found = pool.look_all([agent.chain for agent in agents])
    of_all = shared_blocks_of_all(agents, found)
    one_by_one = [shared_blocks(agent, book, pool) for agent in agents]
    assert one_by_one == of_all
    for agent, stats, shared in zip(agents, found, of_all, strict=True):
        assert stats.own_beyond(shared) == pool.look(agent.chain, shared).own_blocks
    return {agent.name: shared for agent, shared in zip(agents, of_all, strict=True)}


def test_common_beginnings_are_shared(pool: Pool, book: AgentBook) -> None:
    take_turn(pool, book, "atlas", range(3 * BLOCK))
    take_turn(pool, book, "beryl", [*range(2 * BLOCK), 90, 91])
    take_turn(pool, book, "cobra", range(50, 60))
    assert shared_of_each(pool, book) == {"atlas": 2, "beryl": 2, "cobra": 0}


def test_the_block_in_which_another_chain_ends_is_shared(pool: Pool, book: AgentBook) -> None:
    """The short block is superseded by the longer one, which then is both's."""
    take_turn(pool, book, "beryl", range(2 * BLOCK + 2))
    take_turn(pool, book, "atlas", range(3 * BLOCK))
    assert shared_of_each(pool, book) == {"atlas": 3, "beryl": 3}


@pytest.mark.parametrize("seed", range(20))
def test_one_look_agrees_with_the_look_at_all(pool: Pool, book: AgentBook, seed: int) -> None:
    """Whatever tree of chains the agents make, with forks and with forgotten ones."""
    chance = random.Random(seed)
    histories: list[list[int]] = [[]]
    for number in range(12):
        base = chance.choice(histories)
        cut = chance.randrange(len(base) + 1)
        tokens = base[:cut] + [chance.randrange(2) for _ in range(chance.randrange(1, 10))]
        histories.append(tokens[: 10 * BLOCK])
        take_turn(pool, book, f"agent {number}", histories[-1])
        if number % 4 == 3:
            book.fork(f"agent {number}", "m", f"fork {number}", 1.0)
        if number % 5 == 4:
            book.delete(f"agent {number - 1}", "m")
        shared_of_each(pool, book)
    pool.check()
