"""How many blocks of a chain's beginning are another agent's, too.

    atlas  | a | b | c | d |      shared by atlas and beryl: a b, and c if beryl's chain ends inside
    beryl  | a | b | c'|          it: then c' was superseded by c, and is both's

In the order of keys, the chain that has most in common with another one is next to it: keys are
hashes of all that is before them, so equal beginnings are equal keys. One agent therefore needs a
look at its neighbours only. Does not know what is done with the blocks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from dovecote_cache import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_cache import Agent, AgentBook, ChainStats, Pool

__all__ = ["shared_blocks", "shared_blocks_of_all"]


def shared_blocks(agent: Agent, book: AgentBook, pool: Pool) -> int:
    """For one agent of the book, in the time that its own chain takes."""
    chain = agent.chain
    neighbours = book.neighbours(agent)
    common = max((chain.blocks_in_common(other.chain) for other in neighbours), default=0)
    if common == chain.blocks:
        return common
    end = common * KEY_BYTES
    for other in book.ending_under(agent.model, chain.keys[max(0, end - KEY_BYTES) : end]):
        is_short = other.chain.tokens % pool.geometry.block_tokens
        if is_short and pool.look(other.chain).superseded:
            return common + 1
    return common


def shared_blocks_of_all(agents: Sequence[Agent], found: Sequence[ChainStats]) -> list[int]:
    """For all agents of a model, in their order. `found` is what the pool has of each."""
    shared = [0] * len(agents)
    order = sorted(range(len(agents)), key=lambda index: agents[index].chain.keys)
    for one, other in pairwise(order):
        common = agents[one].chain.blocks_in_common(agents[other].chain)
        shared[one] = max(shared[one], common)
        shared[other] = max(shared[other], common)
    ends = {
        agent.chain.keys[:-KEY_BYTES]
        for agent, stats in zip(agents, found, strict=True)
        if stats.superseded
    }
    for index, agent in enumerate(agents):
        common = shared[index]
        if common < agent.chain.blocks and agent.chain.keys[: common * KEY_BYTES] in ends:
            shared[index] += 1
    return shared
