"""Where the cached part of a prompt came from, and why there was no more of it.

    the agent's chain    |-- blocks -------------------|
    the prompt's chain   |-- the same --|-- others --------|    diverges from the agent's here
    found                |-- own -------|-- shared --|
    found                |-- own --|                            the rest of the same was evicted

Told to the block: a part of a block that both begin with counts as the agent's own. A short last
block that was lost (a kill, a full memory) counts as evicted. Does not know requests; the numbers
decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dovecote_cache import Chain, Pool
    from dovecote_engine.request import Missed

__all__ = ["NEW", "Origin", "origin_of"]


@dataclass(frozen=True, slots=True)
class Origin:
    """`own_tokens` of those found are in the agent's own chain; others had the rest.

    `missed`: why the agent's history was not found to its end; None if it was.
    """

    own_tokens: int
    missed: Missed | None


NEW = Origin(0, "new")
"""Of a prompt without an agent, and of an agent's first."""


def origin_of(
    known: Chain, prompt: Chain, found_tokens: int, most_tokens: int, pool: Pool
) -> Origin:
    """The origin of a prompt's `found_tokens`, of which there could be `most_tokens`.

    `known`: the agent's chain before this prompt. `prompt`: that of the whole prompt, sealed now.
    Any thread. Raises: PoolClosed.
    """
    block_tokens, common_blocks = pool.geometry.block_tokens, known.blocks_in_common(prompt)
    common = common_blocks * block_tokens
    own = min(found_tokens, common)
    if found_tokens - own < block_tokens and common_blocks < known.blocks:
        own = found_tokens
    if own >= min(known.tokens, most_tokens):
        return Origin(own, None)
    left = pool.look(known)
    is_lost = own < common or left.tokens <= own or left.superseded
    return Origin(own, "evicted" if is_lost else "diverged")
