"""One request on its way through the engine, and the arithmetic of its positions.

    positions   0 ........ cached ........ length ........ len(prompt) ........ len(tokens)
                [ from the pool )[ computed )[ prompt to compute )[ sampled tokens            )
                [ sealed: the lease's chain, whole blocks, at most `length` )

Q1  The K and V of exactly the tokens [0, length) are in the sequence's row; of layers that have a
    window, as many of the last ones as the next token attends to.
Q2  While it decodes, len(tokens) == length + 1: the last token was sampled and not yet computed.
Q3  A waiting sequence has no row (-1); it holds a lease from submission until it ends.
Q4  A request of n choices is a family of n sequences. It waits as one, the leader, which holds all
    n leases and computes the prompt. The others start with it and follow: their rows stay empty
    until the prompt is complete, and then hold copies of the leader's K and V.
Q5  Of a model with recurrent state: a chunk of the prompt ends at `stop`, where the state is kept
    (0: nowhere), and `snapshot` is the state at the last block's end, until it is kept or dropped.

Does not know the slab, the runner or sequences of other requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dovecote_engine.isolation import Fault, isolated
from dovecote_engine.request import Timing, Usage
from dovecote_engine.sampling.sampler import RowSampler
from dovecote_engine.text.answer import AnswerText, Piece
from dovecote_engine.text.reading import AS_IT_COMES
from dovecote_engine.text.sampled_turns import SampledTurn

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from dovecote_cache import Lease
    from dovecote_engine.request import FinishReason, Request, TokenLogprobs
    from dovecote_engine.rows.row_state import Snapshot
    from dovecote_engine.text.text_stream import TextStream

Phase = Literal["waiting", "following", "restoring", "prefilling", "decoding"]

NO_ROW = -1


@dataclass(frozen=True, slots=True)
class Extent:
    """How many tokens, prompt and answer, a sequence may come to."""

    planned_tokens: int
    """What slab and pool are reserved for: a guess if the request states no `max_tokens`."""
    end_tokens: int
    """Where it ends in any case."""


class Sequence:
    """One choice of a request with its lease, row, tokens and text.

    Made as the leader of its family; `spares` are the leases of the choices that will follow.
    """

    def __init__(
        self,
        request: Request,
        lease: Lease,
        extent: Extent,
        now: float,
        spares: Iterable[Lease] = (),
    ) -> None:
        self.request = request
        self.lease = lease
        self.extent = extent
        self.choice = 0
        self.reading = AS_IT_COMES
        self.family = [self]
        self.has_left = False
        self.tokens = list(request.prompt)
        self.length = 0
        self.row = NO_ROW
        self.matched = 0
        self.kept_tokens = 0
        self.stop = 0
        self.snapshot: Snapshot | None = None
        self.restored_blocks = 0
        self.served_at_step = -1
        self.is_sealing = True
        self.is_cancelled = False
        self.submitted_at = now
        self._started_at = now
        self._restore_s = 0.0
        self._sampler: RowSampler | None = None
        self._spares = [*spares]
        self._text: AnswerText | None = None

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    @property
    def is_last(self) -> bool:
        """Whether no other of the family is left: the request ends with this one."""
        return all(each.has_left for each in self.family if each is not self)

    @property
    def phase(self) -> Phase:
        """What its next step would be."""
        if self.row == NO_ROW:
            return "decoding" if self.has_left else "waiting"
        if self.choice and not self.length:
            return "following"
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
        """The counts of the whole family so far; of the prompt, what its leader found and kept."""
        leader = self.family[0]
        sampled = sum(each.completion_tokens for each in self.family)
        thought = sum(each.reasoning_tokens for each in self.family)
        return Usage(self.prompt_tokens, leader.matched, sampled, thought, leader.kept_tokens)

    @property
    def reasoning_tokens(self) -> int:
        """Those of the sampled tokens that are reasoning."""
        return 0 if self._text is None else self._text.reasoning_tokens

    @property
    def has_calls(self) -> bool:
        """Whether the answer has called a tool."""
        return self._text is not None and bool(self._text.call_ids)

    def turn(self, eos_ids: frozenset[int]) -> SampledTurn | None:
        """The answer as a turn that may come back, with what it began with; None before its first
        token, or if the tokens of its beginning cannot be told.
        """
        text, tokens = self._text, self.tokens[self.prompt_tokens :]
        begun, begun_tokens = self.request.form.begun, self.reading.begun
        if text is None or (begun and not begun_tokens):
            return None
        if tokens and tokens[-1] in eos_ids:
            tokens.pop()
        told = (begun + text.content, text.reasoning, tuple(text.call_ids))
        return SampledTurn([*begun_tokens, *tokens], *told)

    @property
    def sampler(self) -> RowSampler:
        """Made at its first use, since its random key lives on the engine thread."""
        if self._sampler is None:
            request = self.request
            self._sampler = RowSampler(
                request.sampling,
                request.prompt,
                self.choice,
                request.top_logprobs,
                None if self.reading.constraint is None else self.reading.constraint.begin(),
            )
        return self._sampler

    def start(self, row: int, now: float) -> None:
        """Takes a row, finds what the pool has of the prompt and has it read ahead.

        The prompt's last token is never taken from the pool: its logits are wanted.
        """
        self.row = row
        self._started_at = now
        self.matched = self._match()
        if self.matched:
            self.lease.prefetch()

    def fork(self) -> list[Sequence]:
        """The sequences of the other choices, without rows. Each takes one of the spare leases."""
        followers = []
        while self._spares:
            lease = self._spares.pop(0)
            follower = Sequence(self.request, lease, self.extent, self.submitted_at)
            follower.choice = len(self.family)
            follower.reading = self.reading
            self.family.append(follower)
            follower.family = self.family
            followers.append(follower)
        return followers

    def take_over(self, leader: Sequence) -> None:
        """Notes that its row holds what the leader's holds: the prompt.

        Its chain begins with the leader's sealed blocks, which are in the pool by now.
        """
        self.matched, self.length = leader.matched, leader.length
        self.is_sealing = leader.is_sealing
        self._match()

    def release(self) -> None:
        """Gives its lease back, and the spare ones; forgets the state that it held."""
        self.snapshot = None
        for lease in (self.lease, *self._spares):
            lease.release()
        self._spares.clear()

    def begin_text(self, stream: TextStream) -> None:
        """Takes the detokenizer of its answer."""
        self._text = AnswerText(stream, self.request.stop, self.reading.begin())

    def restored(self, valid: int, end_block: int, block_tokens: int, seconds: float) -> None:
        """Notes that blocks up to `end_block` are in the row and that the lease covers `valid`.

        If that is less than it did, windowed layers begin again where they now have to.
        """
        if valid < self.matched:
            self.matched = valid
            end_block = min(end_block, self.lease.resume_block)
        self.length = min(self.matched, end_block * block_tokens)
        self.restored_blocks = end_block
        self._restore_s += seconds

    def timing(self, now: float) -> Timing:
        """Where the time until now went; prefill is what is neither queue nor restore."""
        queue_s = self._started_at - self.submitted_at
        prefill_s = max(0.0, now - self._started_at - self._restore_s)
        return Timing(queue_s, self._restore_s, prefill_s)

    def accept(self, token: int, eos_ids: frozenset[int]) -> FinishReason | None:
        """Appends a sampled token. Returns why the sequence ends with it, None if it goes on."""
        self.tokens.append(token)
        if token in eos_ids:
            return "stop"
        return "length" if len(self.tokens) >= self.extent.end_tokens else None

    def text_of(self, token: int, logprobs: TokenLogprobs | None) -> Piece:
        """What the token adds to the text."""
        assert self._text is not None  # noqa: S101 - begin_text comes before the first token
        return self._text.push(token, logprobs)

    def rest_of_text(self) -> Piece:
        """What was still held back."""
        return Piece() if self._text is None else self._text.finish()

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended its text, if one did."""
        return None if self._text is None else self._text.stopped_by

    def unsealed(self) -> npt.NDArray[np.uint32]:
        """The computed tokens that follow the lease's last whole block."""
        return np.array(self.tokens[self.lease.whole_tokens : self.length], np.uint32)

    def has_whole_block(self, block_tokens: int) -> bool:
        """Whether a block has filled up since the last seal."""
        return self.length - self.lease.whole_tokens >= block_tokens

    def _match(self) -> int:
        prompt = np.array(self.request.prompt[:-1], np.uint32)
        found = isolated(self.lease.match, prompt, self.request.salt)
        return 0 if isinstance(found, Fault) else found
