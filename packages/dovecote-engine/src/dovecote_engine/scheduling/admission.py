"""The engine's door: who may wait for a row, and who is told to come back later.

    screen --> submit --> waiting ----take-----> a row --> finished
                             `--take_cancelled, take_expired--^

A request that is let in has its pool frames reserved for the longest answer that it asks for: what
it computes can be kept, whatever else is let in. Blocks under no lease, those of idle agents, count
as free: the pool evicts them before anybody is refused. The slab's bytes are reserved when a row is
given, which is what the waiting is for. A request's id stays live until `finished`.

Does not know the slab, the rows or the model. Any thread, but for what says engine thread.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_cache import PoolExhausted
from dovecote_engine.errors import BadRequest, ContextExceeded, Draining, Overloaded
from dovecote_engine.sampling import bounds
from dovecote_engine.scheduling.drain_rate import DrainRate
from dovecote_engine.scheduling.sequence import Extent, Sequence
from dovecote_engine.text.reading import AS_IT_COMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dovecote_cache import Lease, Pool
    from dovecote_engine.options import EngineOptions
    from dovecote_engine.request import Request
    from dovecote_engine.scheduling.sequence import Phase
    from dovecote_engine.text.reading import Reading

# A process that drains is replaced by another one within about that time.
_DRAINING_RETRY_S = 10.0


def _without_limit(rows: int, tokens: int) -> bool:  # noqa: ARG001 - the shape of `Limits.fits`
    return True


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model allows: token ids below `vocabulary`, prompt and answer within the context.

    `token_characters`: no token stands for more characters of a prompt; 0 if that is not known.
    `fits`: whether so many rows of so many tokens could ever run together.
    `is_cached`: whether the pool keeps what it computes; if not, leases hold nothing.
    """

    vocabulary: int
    context_tokens: int
    token_characters: int = 0
    fits: Callable[[int, int], bool] = _without_limit
    is_cached: bool = True


class Admission:
    """The bounded queue in front of the engine."""

    def __init__(
        self,
        pool: Pool,
        options: EngineOptions,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._options = options
        self._limits = limits
        self._clock = clock
        self._change = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._waiting_tokens = 0
        self._live: dict[str, Sequence] = {}
        self._cancelled: set[str] = set()
        self._rate = DrainRate(clock)
        self._is_draining = False
        self._is_woken = False

    @property
    def waiting(self) -> int:
        """Requests that wait for a row."""
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of those that wait."""
        return self._waiting_tokens

    @property
    def retry_after_s(self) -> float:
        """How long until the queue has moved on."""
        return self._rate.seconds_for(len(self._waiting) + 1)

    @property
    def is_draining(self) -> bool:
        """Whether nobody is let in any more."""
        return self._is_draining

    def screen(self, characters: int) -> None:
        """Refuses what `submit` would refuse whatever the prompt's tokens are: before any work.

        Raises: Draining, Overloaded, ContextExceeded.
        """
        with self._change:
            self._check_door()
            self._check_queue(1)
            self._check_pool(1 if self._limits.is_cached else 0)
        if self._limits.token_characters:
            least = -(-characters // self._limits.token_characters)
            if least >= self._limits.context_tokens:
                raise ContextExceeded(self._limits.context_tokens, least)

    def submit(self, request: Request, reading: Reading = AS_IT_COMES) -> None:
        """Queues the request with its frames reserved. `reading`: how its answer is to be read.

        Raises: BadRequest, ContextExceeded, Draining, Overloaded; nothing is reserved then.
        """
        extent = self._extent(request)
        with self._change:
            self._check_door()
            if request.id in self._live:
                raise BadRequest("a request of that id is running", "id")
            self._check_queue(len(request.prompt))
            lease, *spares = self._reserve(extent.planned_tokens, request.choices)
            sequence = Sequence(request, lease, extent, self._clock(), spares)
            sequence.reading = reading
            if not self._live:
                self._rate.begin()
            self._waiting.append(sequence)
            self._waiting_tokens += sequence.prompt_tokens
            self._live[request.id] = sequence
            self._change.notify_all()

    def cancel(self, request_id: str) -> Phase | None:
        """Marks a request, wherever it is; tells where, None if it is unknown or over."""
        with self._change:
            sequence = self._live.get(request_id)
            if sequence is None:
                return None
            self._cancelled.add(request_id)
            self._change.notify_all()
            return sequence.phase

    def is_busy(self, agent: str) -> bool:
        """Whether a request of that agent waits or runs."""
        with self._change:
            return any(each.request.agent == agent for each in self._live.values())

    def drain(self) -> None:
        """Lets nobody in any more."""
        with self._change:
            self._is_draining = True
            self._change.notify_all()

    def wake(self) -> None:
        """Ends the current wait, or the next one."""
        with self._change:
            self._is_woken = True
            self._change.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits for a request or a cancellation; whether there is one. Engine thread."""
        with self._change:
            self._change.wait_for(
                lambda: self._waiting or self._cancelled or self._is_woken, timeout_s
            )
            self._is_woken = False
            return bool(self._waiting or self._cancelled)

    def take_cancelled(self, running: Iterable[Sequence]) -> tuple[Sequence, ...]:
        """Those cancelled since the last call, marked; out of the queue if they were in it.

        Engine thread.
        """
        with self._change:
            if not self._cancelled:
                return ()
            taken = self._take_if(lambda each: each.id in self._cancelled)
            taken += [each for each in running if each.id in self._cancelled]
            self._cancelled.clear()
        for sequence in taken:
            sequence.is_cancelled = True
        return tuple(taken)

    def take_expired(self) -> tuple[Sequence, ...]:
        """Those that waited longer than they may, out of the queue. Engine thread."""
        deadline = self._clock() - self._options.queue_seconds
        with self._change:
            if not self._waiting or self._waiting[0].submitted_at > deadline:
                return ()
            return tuple(self._take_if(lambda each: each.submitted_at <= deadline))

    def heads(self, rows: Iterable[Sequence]) -> list[Sequence]:
        """Those that may start beside `rows`, in the order of submission: one of each agent that
        has no row, and all without an agent. Engine thread.
        """
        busy = {row.request.agent for row in rows}
        first = []
        with self._change:
            for sequence in self._waiting:
                agent = sequence.request.agent
                if agent is None or agent not in busy:
                    first.append(sequence)
                    busy.add(agent)
        return first

    def take(self, sequence: Sequence) -> None:
        """Takes a waiting sequence out of the queue. Engine thread."""
        with self._change:
            self._waiting.remove(sequence)
            self._waiting_tokens -= sequence.prompt_tokens

    def take_all(self) -> list[Sequence]:
        """Empties the queue. Engine thread, at the end."""
        with self._change:
            return self._take_if(lambda _: True)

    def finished(self, sequence: Sequence) -> None:
        """Forgets the request's id. Engine thread."""
        with self._change:
            self._live.pop(sequence.id, None)
            self._cancelled.discard(sequence.id)
            self._rate.note_departure()

    def _take_if(self, claim: Callable[[Sequence], bool]) -> list[Sequence]:
        taken = [each for each in self._waiting if claim(each)]
        if taken:
            self._waiting = deque(each for each in self._waiting if not claim(each))
            self._waiting_tokens -= sum(each.prompt_tokens for each in taken)
        return taken

    def _check_door(self) -> None:
        if self._is_draining:
            raise Draining("The server is shutting down.", _DRAINING_RETRY_S)

    def _check_queue(self, tokens: int) -> None:
        if len(self._waiting) >= self._options.max_waiting:
            raise Overloaded("Too many requests are waiting.", self.retry_after_s)
        if self._waiting and self._waiting_tokens + tokens > self._options.max_waiting_tokens:
            raise Overloaded("Too many prompt tokens are waiting.", self.retry_after_s)

    def _check_pool(self, frames: int) -> None:
        """A request that is alone may have all of it."""
        stats = self._pool.stats()
        in_use = stats.leased + stats.promised
        if in_use and in_use + frames > self._options.pool_limit * stats.frames:
            raise Overloaded("The cache is in use.", self.retry_after_s)

    def _extent(self, request: Request) -> Extent:
        """Validates the request and says how long it may get."""
        bounds.check(request, self._limits.vocabulary)
        prompt, asked = len(request.prompt), request.max_tokens
        if not prompt:
            raise BadRequest("the prompt holds no token", "messages")
        if not 0 <= min(request.prompt) <= max(request.prompt) < self._limits.vocabulary:
            raise BadRequest("a token id is not in the model's vocabulary", "messages")
        if asked is not None and asked < 1:
            raise BadRequest("max_tokens must be at least 1", "max_tokens")
        context = self._limits.context_tokens
        least = prompt + (asked or 1)
        if least > context:
            raise ContextExceeded(context, least if asked else prompt)
        guess = min(context, prompt + self._options.default_max_tokens)
        extent = Extent(guess, context) if asked is None else Extent(least, least)
        self._check_rows(request.choices, extent)
        return extent

    def _check_rows(self, choices: int, extent: Extent) -> None:
        """Refuses more choices than could ever run side by side."""
        if choices > self._options.max_rows:
            most = self._options.max_rows
            raise BadRequest(f"this server computes at most {most} choices at once", "n")
        if choices > 1 and not self._limits.fits(choices, extent.planned_tokens):
            raise BadRequest("so many choices of that length do not fit into memory", "n")

    def _reserve(self, tokens: int, choices: int) -> list[Lease]:
        """For each choice a lease over that many tokens, or over its share of a smaller pool.

        What comes after the end of such a lease is computed and not kept.
        """
        blocks = self._pool.geometry.blocks(tokens) if self._limits.is_cached else 0
        frames = min(blocks, self._pool.frames // choices)
        self._check_pool(frames * choices)
        leases: list[Lease] = []
        try:
            for _ in range(choices):
                lease = self._pool.lease(frames * self._pool.geometry.block_tokens)
                leases.append(lease)
        except PoolExhausted as error:
            for lease in leases:
                lease.release()
            raise Overloaded("The cache is in use.", self.retry_after_s) from error
        return leases
