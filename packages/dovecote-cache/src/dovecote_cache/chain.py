"""A chain that somebody noted, by the keys of its blocks, and what the pool has left of it.

Keys are those of one pool file and its secret. They say where to look: what is cached is decided by
token ids alone. Does not know who noted the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["KEY_BYTES", "Chain", "ChainStats"]

KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Chain:
    """`tokens` tokens in blocks whose `keys` follow one another, 16 bytes each."""

    keys: bytes
    tokens: int

    @property
    def blocks(self) -> int:
        """Blocks of the chain, the short one at its end included."""
        return len(self.keys) // KEY_BYTES

    def blocks_in_common(self, other: Chain) -> int:
        """The length in blocks of the longest beginning that both have."""
        low, high = 0, min(self.blocks, other.blocks)
        while low < high:
            middle = (low + high + 1) // 2
            end = middle * KEY_BYTES
            if self.keys[:end] == other.keys[:end]:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass(frozen=True, slots=True)
class ChainStats:
    """What is cached of a chain, under the names of `dovecote_chain_stats`.

    `own_blocks` of the `blocks` are nobody else's, and would be freed with the chain. `superseded`
    is 1 if the last of the blocks is a longer one that took the place of the chain's short one.
    """

    tokens: int
    blocks: int
    own_blocks: int
    pinned_blocks: int
    superseded: int = 0

    def own_beyond(self, shared_blocks: int) -> int:
        """`own_blocks` if the first `shared_blocks` of the chain are somebody else's, too."""
        return max(0, min(self.own_blocks, self.blocks - self.superseded - shared_blocks))
