"""The engine's door: who may wait for a row, and who is told to come back later.

    submit --> waiting --take_next--> a row --> finished
                  `------take_cancelled-------------^

A request that is let in has its pool frames reserved: what it computes can be kept, whatever else
is let in. Its id stays live until `finished`.

Does not know the slab, the rows or the model. Any thread, but for what says engine thread.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_cache import PoolExhausted
from dovecote_engine import sampler
from dovecote_engine.errors import BadRequest, ContextExceeded, Draining, Overloaded
from dovecote_engine.sequence import Extent, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from dovecote_cache import Lease, Pool
    from dovecote_engine.options import EngineOptions
    from dovecote_engine.request import Request

_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 60.0
# A process that drains is replaced by another one within about that time.
_DRAINING_RETRY_S = 10.0
_RECENT_COMPLETIONS = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model allows: token ids below `vocabulary`, prompt and answer within the context."""

    vocabulary: int
    context_tokens: int


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
        self._live: set[str] = set()
        self._cancelled: set[str] = set()
        self._completions: deque[float] = deque(maxlen=_RECENT_COMPLETIONS)
        self._is_draining = False
        self._is_woken = False

    @property
    def waiting(self) -> int:
        """Requests that wait for a row."""
        return len(self._waiting)

    @property
    def is_draining(self) -> bool:
        """Whether nobody is let in any more."""
        return self._is_draining

    def submit(self, request: Request) -> None:
        """Queues the request with its frames reserved.

        Raises: BadRequest, ContextExceeded, Draining, Overloaded; nothing is reserved then.
        """
        extent = self._extent(request)
        with self._change:
            if self._is_draining:
                raise Draining("The server is shutting down.", _DRAINING_RETRY_S)
            if request.id in self._live:
                raise BadRequest("a request of that id is running", "id")
            if len(self._waiting) >= self._options.max_waiting:
                raise Overloaded("Too many requests are waiting.", self._retry_after_s())
            lease = self._reserve(extent.planned_tokens)
            self._waiting.append(Sequence(request, lease, extent, self._clock()))
            self._live.add(request.id)
            self._change.notify_all()

    def cancel(self, request_id: str) -> None:
        """Marks a request, wherever it is; unknown and finished ones are ignored."""
        with self._change:
            if request_id in self._live:
                self._cancelled.add(request_id)
                self._change.notify_all()

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
            taken = [each for each in (*self._waiting, *running) if each.id in self._cancelled]
            self._waiting = deque(each for each in self._waiting if each not in taken)
            self._cancelled.clear()
        for sequence in taken:
            sequence.is_cancelled = True
        return tuple(taken)

    def take_next(
        self, busy_agents: AbstractSet[str | None], fits: Callable[[Sequence], bool]
    ) -> Sequence | None:
        """The first in the queue whose agent is not busy, unless it does not fit. Engine thread."""
        with self._change:
            for place, sequence in enumerate(self._waiting):
                if sequence.request.agent not in busy_agents:
                    if not fits(sequence):
                        return None
                    del self._waiting[place]
                    return sequence
        return None

    def take_all(self) -> list[Sequence]:
        """Empties the queue. Engine thread, at the end."""
        with self._change:
            taken = [*self._waiting]
            self._waiting.clear()
            return taken

    def finished(self, sequence: Sequence) -> None:
        """Forgets the request's id. Engine thread."""
        with self._change:
            self._live.discard(sequence.id)
            self._cancelled.discard(sequence.id)
            self._completions.append(self._clock())

    def _extent(self, request: Request) -> Extent:
        """Validates the request and says how long it may get."""
        sampler.validate(request.sampling)
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
        return Extent(guess, context) if asked is None else Extent(least, least)

    def _reserve(self, tokens: int) -> Lease:
        """A lease over that many tokens, or over the whole pool where it is smaller.

        What comes after the end of such a lease is computed and not kept.
        """
        whole = self._pool.frames * self._pool.geometry.block_tokens
        try:
            return self._pool.lease(min(tokens, whole))
        except PoolExhausted as error:
            raise Overloaded("The cache is in use.", self._retry_after_s()) from error

    def _retry_after_s(self) -> float:
        """How long until the queue has moved on, at the pace of the last completions."""
        ahead = len(self._waiting) + 1
        if not self._completions:
            return min(_RETRY_MAX_S, _RETRY_MIN_S * ahead)
        span_s = self._clock() - self._completions[0]
        return min(_RETRY_MAX_S, max(_RETRY_MIN_S, ahead * span_s / len(self._completions)))
