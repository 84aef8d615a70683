"""How much other work fits between two tokens of the rows that decode.

    a step:   [ growth | restore | prefill ][ decode ]
              '------- at most (gap_ratio - 1) times the decode, at most chunk_seconds -----'

The three share one allowance, in that order: growth makes room for restores, restores for prefill.
Each is cut by its own measured pace, never below a least piece, so that nothing stops.

Does not know rows or sequences. Engine thread only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dovecote_engine.pace import Pace

if TYPE_CHECKING:
    from dovecote_engine.options import EngineOptions

# A chunk much shorter than this costs as much as it, since the weights are read once either way
# (SmolLM2-135M on two cores: 1 token 27 ms, 16 tokens 64, 32 tokens 98, 64 tokens 159).
_LEAST_CHUNK_TOKENS = 16
_EFFICIENT_TOKENS = 64
_FIRST_CHUNK_TOKENS = 32
_FIRST_RESTORE_BLOCKS = 8
_FIRST_PLANES = 2

# As in `pace.py`: the best of the last few, so that a stall buys no larger pieces.
_REMEMBERED = 4


class GapBudget:
    """The paces, and the time that a step has for each kind of work."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._decode_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.growth = Pace(_FIRST_PLANES, 1)
        self.restore = Pace(_FIRST_RESTORE_BLOCKS, 1)
        self.prefill = Pace(_FIRST_CHUNK_TOKENS, _LEAST_CHUNK_TOKENS)

    def note_decode(self, seconds: float) -> None:
        """Learns how long a step takes that does nothing else."""
        self._decode_s.append(seconds)

    @property
    def allowance_s(self) -> float:
        """What one step has, besides decoding."""
        limit_s = self._options.chunk_seconds
        if not self._decode_s:
            return limit_s
        return min(limit_s, (self._options.gap_ratio - 1) * min(self._decode_s))

    def planes(self) -> int:
        """Planes of the slab that one step may grow."""
        return self.growth.units_in(min(self.allowance_s, self._options.restore_seconds))

    def blocks(self) -> int:
        """Blocks that one step may restore."""
        return self.restore.units_in(min(self.allowance_s, self._options.restore_seconds))

    def unhurried_tokens(self) -> int:
        """Prompt tokens of a chunk while nobody decodes, but others wait for chunks."""
        return max(_EFFICIENT_TOKENS, self.prefill.units_in(self._options.chunk_seconds))

    def chunk_tokens(self, spent_s: float) -> int:
        """Prompt tokens that one step may compute after `spent_s` of growth and restore.

        0 where those took more than half: even the least chunk would then be too much.
        """
        left_s = self.allowance_s - spent_s
        return 0 if left_s < self.allowance_s / 2 else self.prefill.units_in(left_s)
