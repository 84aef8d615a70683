"""One request on its way through the engine, and the arithmetic of its positions.

    positions   0 ........ cached ........ length ........ len(prompt) ........ len(tokens)
                [ from the pool )[ computed )[ prompt to compute )[ sampled tokens            )
                [ sealed: the lease's chain, whole blocks, at most `length` )

Q1  The K and V of exactly the tokens [0, length) are in the sequence's row.
Q2  While it decodes, len(tokens) == length + 1: the last token was sampled and not yet computed.
Q3  A waiting sequence has no row (-1); it holds a lease from submission until it ends.

Does not know the slab, the runner or other sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dovecote_engine.isolation import Fault, isolated
from dovecote_engine.request import Timing, Usage
from dovecote_engine.sampler import RowSampler

if TYPE_CHECKING:
    import numpy.typing as npt

    from dovecote_cache import Lease
    from dovecote_engine.request import FinishReason, Request
    from dovecote_engine.text_stream import TextStream

Phase = Literal["waiting", "restoring", "prefilling", "decoding"]

NO_ROW = -1


@dataclass(frozen=True, slots=True)
class Extent:
    """How many tokens, prompt and answer, a sequence may come to."""

    planned_tokens: int
    """What slab and pool are reserved for: a guess if the request states no `max_tokens`."""
    end_tokens: int
    """Where it ends in any case."""


class Sequence:
    """A request with its lease, row, tokens and text."""

    def __init__(self, request: Request, lease: Lease, extent: Extent, now: float) -> None:
        self.request = request
        self.lease = lease
        self.extent = extent
        self.tokens = list(request.prompt)
        self.length = 0
        self.row = NO_ROW
        self.matched = 0
        self.restored_blocks = 0
        self.served_at_step = -1
        self.is_sealing = True
        self.is_cancelled = False
        self._submitted_at = now
        self._started_at = now
        self._restore_s = 0.0
        self._sampler: RowSampler | None = None
        self._stream: TextStream | None = None

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    @property
    def phase(self) -> Phase:
        """What its next step would be."""
        if self.row == NO_ROW:
            return "waiting"
        if self.length < self.matched:
            return "restoring"
        return "prefilling" if self.length < self.prompt_tokens else "decoding"

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def completion_tokens(self) -> int:
        """Tokens sampled, the one that ended it included."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def usage(self) -> Usage:
        """The counts so far."""
        return Usage(self.prompt_tokens, self.matched, self.completion_tokens)

    @property
    def sampler(self) -> RowSampler:
        """Made at its first use, since its random key lives on the engine thread."""
        if self._sampler is None:
            self._sampler = RowSampler(self.request.sampling)
        return self._sampler

    def start(self, row: int, now: float) -> None:
        """Takes a row, finds what the pool has of the prompt and has it read ahead.

        The prompt's last token is never taken from the pool: its logits are wanted.
        """
        self.row = row
        self._started_at = now
        found = isolated(self.lease.match, np.array(self.request.prompt[:-1], np.uint32))
        self.matched = 0 if isinstance(found, Fault) else found
        if self.matched:
            self.lease.prefetch()

    def begin_text(self, stream: TextStream) -> None:
        """Takes the detokenizer of its answer."""
        self._stream = stream

    def restored(self, valid: int, end_block: int, block_tokens: int, seconds: float) -> None:
        """Notes that blocks up to `end_block` are in the row and that the lease covers `valid`."""
        self.matched = min(self.matched, valid)
        self.length = min(self.matched, end_block * block_tokens)
        self.restored_blocks = end_block
        self._restore_s += seconds

    def timing(self, now: float) -> Timing:
        """Where the time until now went; prefill is what is neither queue nor restore."""
        queue_s = self._started_at - self._submitted_at
        prefill_s = max(0.0, now - self._started_at - self._restore_s)
        return Timing(queue_s, self._restore_s, prefill_s)

    def accept(self, token: int, eos_ids: frozenset[int]) -> FinishReason | None:
        """Appends a sampled token. Returns why the sequence ends with it, None if it goes on."""
        self.tokens.append(token)
        if token in eos_ids:
            return "stop"
        return "length" if len(self.tokens) >= self.extent.end_tokens else None

    def text_of(self, token: int) -> str:
        """What the token adds to the text."""
        assert self._stream is not None  # noqa: S101 - begin_text comes before the first token
        return self._stream.push(token)

    def rest_of_text(self) -> str:
        """What the detokenizer still held back."""
        return "" if self._stream is None else self._stream.finish()

    def unsealed(self) -> npt.NDArray[np.uint32]:
        """The computed tokens that follow the lease's last whole block."""
        return np.array(self.tokens[self.lease.whole_tokens : self.length], np.uint32)

    def has_whole_block(self, block_tokens: int) -> bool:
        """Whether a block has filled up since the last seal."""
        return self.length - self.lease.whole_tokens >= block_tokens
