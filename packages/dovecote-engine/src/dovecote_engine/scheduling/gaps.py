"""How much other work fits between two tokens of the rows that decode.

    a step:   [ growth | restore | prefill ][ decode ]
              '------- at most (gap_ratio - 1) times the decode, at most chunk_seconds -----'

The three share one allowance, in that order: growth makes room for restores, restores for prefill.
Each is cut by its own measured pace, never below a least piece, so that nothing stops.

Does not know rows or sequences. Engine thread only.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low
from typing import TYPE_CHECKING

from dovecote_engine.scheduling.pace import Pace

if TYPE_CHECKING:
    from dovecote_engine.options import EngineOptions

# A chunk in the decode's own forward costs its share alone, 1.3 ms a token of SmolLM2-135M on two
# cores; in a forward of its own, 26 ms more, for reading the weights. So hurried chunks have a pace
# of their own, and begin small.
_HURRIED_STEP_TOKENS = 4
_FIRST_HURRIED_TOKENS = 8
_FIRST_CHUNK_TOKENS = 64
_LEAST_CHUNK_TOKENS = 64
_FIRST_RESTORE_BLOCKS = 8
_FIRST_PLANES = 2

# A chunk that shares the decode's forward hides how long that takes alone: after so many steps one
# decodes alone, to be measured.
_MOST_JOINT_STEPS = 16

# As in `pace.py`: the best of the last few, so that a stall buys no larger pieces.
_REMEMBERED = 4


class GapBudget:
    """The paces, and the time that a step has for each kind of work."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._decode_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._joint_steps = 0
        self.growth = Pace(_FIRST_PLANES, 1)
        self.restore = Pace(_FIRST_RESTORE_BLOCKS, 1)
        # The median, since here the best would be paid for with gaps, and a stall costs little.
        self._hurried = Pace(_FIRST_HURRIED_TOKENS, _HURRIED_STEP_TOKENS, median_low)
        self._unhurried = Pace(_FIRST_CHUNK_TOKENS, _LEAST_CHUNK_TOKENS)

    def note_decode(self, seconds: float) -> None:
        """Learns how long a step takes that does nothing else."""
        self._decode_s.append(seconds)
        self._joint_steps = 0

    def note_chunk(self, tokens: int, seconds: float, *, is_hurried: bool) -> None:
        """Learns how long a chunk took, beside rows that decode (hurried) or not."""
        (self._hurried if is_hurried else self._unhurried).record(tokens, seconds)

    def note_joint(self, tokens: int, seconds: float) -> None:
        """Learns from a chunk that was computed in one forward with the decode."""
        self._joint_steps += 1
        chunk_s = seconds - min(self._decode_s, default=0.0)
        self.note_chunk(tokens, max(chunk_s, seconds / 100), is_hurried=True)

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
        """Prompt tokens of a chunk while nobody decodes, but others wait for their chunks."""
        return self._unhurried.units_in(self._options.chunk_seconds)

    def hurried_tokens(self, spent_s: float) -> int:
        """Prompt tokens that one step may compute after `spent_s` of growth and restore.

        0 where those took more than half, since even the least chunk would then be too much, and
        where it is time to see how long a decode takes by itself.
        """
        left_s = self.allowance_s - spent_s
        if left_s < self.allowance_s / 2 or self._joint_steps >= _MOST_JOINT_STEPS:
            return 0
        tokens = self._hurried.units_in(left_s)
        return tokens - tokens % _HURRIED_STEP_TOKENS
