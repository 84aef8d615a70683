"""What one engine step will run, and what came of it: plain values between scheduler and runner.

A step runs, in this order: one slice of the slab's growth, one of a restore, one chunk of a
prefill, one token for every row that decodes. Ranges are half open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dovecote_engine.isolation import Fault
    from dovecote_engine.sampling.sampler import Sampled
    from dovecote_engine.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class RestoreSlice:
    """Blocks [start_block, end_block) of the sequence's lease, into its row."""

    sequence: Sequence
    start_block: int
    end_block: int


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Positions [start, end) of the sequence's prompt."""

    sequence: Sequence
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        """Whether the first token of each choice is sampled from it."""
        return self.end == self.sequence.prompt_tokens


@dataclass(frozen=True, slots=True)
class GrowthSlice:
    """The next `planes` planes of the slab on its way to that many rows of that many tokens."""

    rows: int
    tokens: int
    planes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. `decode` holds the sequences of the rows [0, R), in row order.

    `cancelled` end in the step's commit; one of them may still be in `decode`, since a row leaves
    only between steps: what is computed for it is dropped.
    """

    cancelled: tuple[Sequence, ...] = ()
    expired: tuple[Sequence, ...] = ()
    """Those that waited too long for a row; they have none."""
    growth: GrowthSlice | None = None
    restore: RestoreSlice | None = None
    prefill: PrefillChunk | None = None
    decode: tuple[Sequence, ...] = ()
    rows: int = 0
    """Rows that the slab must have for the step."""
    capacity: int = 0
    """Positions that each row must have for the step."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The lease covers `valid_tokens`: fewer than it did if a block turned out to be damaged."""

    valid_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Prefilled:
    """`sampled` is each choice's first token; none unless the chunk was the prompt's last."""

    sampled: tuple[Sampled, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Grown:
    """A slice of the slab's growth is done."""

    planes: int
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What a plan's parts came to; None for a part that was not planned or not run.

    `slab_lost`: the forward failed in a way that leaves no row to be trusted.
    """

    grown: Grown | None = None
    restored: Restored | Fault | None = None
    prefilled: Prefilled | Fault | None = None
    decoded: list[Sampled | Fault] = field(default_factory=list)
    is_joint: bool = False
    """Chunk and decode were one forward; `prefilled.seconds` is how long both took."""
    slab_lost: Fault | None = None
