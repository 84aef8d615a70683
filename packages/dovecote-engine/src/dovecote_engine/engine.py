"""The engine: one model, one slab, one pool, and the requests between them.

    any thread                      engine thread
    submit, cancel, drain, wake     wait --> step: plan -> run -> commit --> events
          `--> Admission <--take-- Scheduler     Runner   Committer --> Keeper --> pool, book

Scheduler and runner never call each other. Nothing here calls upwards: what a step did is returned.

Does not know HTTP, files or configuration.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dovecote_cache import CacheError
from dovecote_engine.admission import Admission, Limits
from dovecote_engine.committer import Committer, Parts
from dovecote_engine.counters import Counters
from dovecote_engine.keeper import Keeper
from dovecote_engine.options import EngineOptions
from dovecote_engine.runner import Runner
from dovecote_engine.scheduler import Scheduler
from dovecote_engine.served import ServedModel
from dovecote_engine.slab import Slab

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_cache import Agent, AgentBook, Pool, PoolStats
    from dovecote_engine.request import Event, Request
    from dovecote_engine.served import Loaded

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot, for health and metrics.

    `last_step_s` is the engine clock's time at the end of the last step: an engine with running
    rows and an old last step is stuck.
    """

    running: int
    waiting: int
    draining: bool
    rows: int
    capacity_tokens: int
    slab_bytes: int
    last_step_s: float
    counters: Counters
    pool: PoolStats


class Engine:
    """Serves requests from one model. Owns the pool and the book: `close` closes them."""

    def __init__(
        self,
        loaded: Loaded,
        pool: Pool,
        book: AgentBook | None = None,
        options: EngineOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Engine thread: runs the model once, to find its vocabulary."""
        options = options or EngineOptions()
        self._pool, self._book, self._clock = pool, book, clock
        self._is_closed = False
        self._checked_at_step = 0
        self._counters = Counters()
        self._last_step_s = clock()
        self._slab = Slab(loaded.geometry, options.slab_bytes)
        self._runner = Runner(loaded.model, self._slab)
        context_tokens = min(loaded.context_tokens, self._slab.row_limit_tokens)
        self.model = ServedModel(loaded.id, loaded.created, context_tokens, loaded.tokenizer)
        limits = Limits(self._runner.vocabulary, context_tokens)
        self._admission = Admission(pool, options, limits, clock)
        self._scheduler = Scheduler(self._admission, self._slab, options, clock)
        keeper = Keeper(self._slab, book, loaded.id, self._counters)
        parts = Parts(loaded, self._admission, self._scheduler, self._slab, keeper, self._counters)
        self._committer = Committer(parts, clock)

    def submit(self, request: Request) -> None:
        """Lets the request in; its events come from `step`. Any thread.

        Raises: BadRequest, ContextExceeded, Overloaded, Draining; nothing is reserved then.
        """
        self._admission.submit(request)

    def cancel(self, request_id: str) -> None:
        """Ends the request soon, with Finished(reason="cancelled"); a second call does nothing.

        What it computed stays in the pool. Any thread.
        """
        self._admission.cancel(request_id)

    def drain(self) -> None:
        """Refuses new requests from now on; those let in go on. Any thread."""
        self._admission.drain()

    def wake(self) -> None:
        """Ends the current `wait`, or the next one. Any thread."""
        self._admission.wake()

    @property
    def status(self) -> EngineStatus:
        """What the engine is doing. Any thread."""
        return EngineStatus(
            running=len(self._scheduler.rows),
            waiting=self._admission.waiting,
            draining=self._admission.is_draining,
            rows=self._slab.rows,
            capacity_tokens=self._slab.capacity,
            slab_bytes=self._slab.bytes,
            last_step_s=self._last_step_s,
            counters=replace(self._counters),
            pool=self._pool.stats(),
        )

    def agents(self) -> list[Agent]:
        """The agents in the book. Any thread."""
        return [] if self._book is None else self._book.list()

    def wait(self, timeout_s: float) -> bool:
        """Waits until there is something to do; whether there is. Engine thread.

        Uses the first idle moment after work to check the pool. Raises: PoolBroken, which nothing
        but a bug can cause: better no service than wrong tokens.
        """
        if self._scheduler.rows or self._admission.wait(timeout_s):
            return True
        if self._checked_at_step != self._counters.steps:
            self._checked_at_step = self._counters.steps
            self._pool.check()
        return False

    def step(self) -> list[Event]:
        """Runs one step and returns its events. Engine thread."""
        plan = self._scheduler.plan()
        outcome = self._runner.run(plan)
        events = self._committer.commit(plan, outcome)
        self._counters.steps += 1
        self._last_step_s = self._clock()
        return events

    def close(self) -> None:
        """Releases every lease and the slab, without further events; syncs and closes the pool.

        Engine thread; a second close does nothing.
        """
        self._admission.drain()
        for sequence in (*self._scheduler.clear(), *self._admission.take_all()):
            sequence.lease.release()
        self._slab.reset()
        if not self._is_closed:
            self._is_closed = True
            self._close_stores()

    def _close_stores(self) -> None:
        try:
            self._pool.sync()
        except CacheError as error:
            # What is sealed was handed to the system already: this costs only a power failure.
            _log.warning("the pool could not be synced: %s", error)
        self._pool.close()
        if self._book is not None:
            self._book.close()
