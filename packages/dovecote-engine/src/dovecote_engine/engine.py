"""The engine: one model, one slab, one pool, and the requests between them.

    any thread                      engine thread
    submit, cancel, drain, wake     wait --> step: plan -> run -> commit --> events
          `--> Admission <--take-- Scheduler     Runner   Committer --> Keeper --> pool
    agents  ---------------------------------------------------- Agents <--' `--> pool, book

Scheduler and runner never call each other. Nothing here calls upwards: what a step did is returned.

Does not know HTTP, files or configuration.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import mlx.core as mx

from dovecote_cache import CacheError, PoolBroken
from dovecote_engine import heap
from dovecote_engine.agents.agents import Agents
from dovecote_engine.agents.settling import Settling
from dovecote_engine.counters import Counters
from dovecote_engine.options import EngineOptions
from dovecote_engine.rows.works import assemble
from dovecote_engine.scheduling.admission import Admission, Limits
from dovecote_engine.scheduling.committer import Committer, Parts
from dovecote_engine.scheduling.runner import Runner
from dovecote_engine.scheduling.scheduler import Scheduler
from dovecote_engine.served import ServedModel
from dovecote_engine.text.reading import RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_cache import AgentBook, Pool, PoolStats, Verified
    from dovecote_engine.request import Event, Request
    from dovecote_engine.scheduling.sequence import Phase
    from dovecote_engine.served import Loaded

_log = logging.getLogger(__name__)

_EXPIRE_EVERY_S = 1.0
"""How often the book is asked for agents whose time to live is over: an indexed look-up."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot, for health and metrics.

    `last_step_s` is the engine clock's time at the end of the last step: an engine with running
    rows and an old last step is stuck.
    """

    running: int
    waiting: int
    waiting_tokens: int
    draining: bool
    rows: int
    capacity_tokens: int
    slab_bytes: int
    last_step_s: float
    counters: Counters
    pool: PoolStats
    uncached: str = ""
    """Why the model's K and V are not kept; empty if they are."""


def leave_thread() -> None:
    """Ends MLX's streams in a thread that was the engine's own: `close` does, and whoever fails
    before there is an engine to close.

    MLX 0.32 aborts at the process's end, about every second time, if a thread that used it has
    ended with its streams. Afterwards a thread cannot use MLX any more, so the main one is spared.
    """
    if threading.current_thread() is not threading.main_thread():
        mx.clear_streams()


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
        self._checked_at_step = self._flushed_at_step = 0
        self._flush_s = options.flush_seconds
        self._slab_idle_s, self._slab_idle_bytes = (
            options.slab_idle_seconds,
            options.slab_idle_bytes,
        )
        self._settling = Settling(pool, options.flush_seconds, clock)
        self._counters = Counters()
        self._last_step_s = clock()
        works = assemble(loaded, pool, options)
        self._rows, self._runner = works.rows, Runner(works.forward, works.rows)
        context_tokens = min(loaded.context_tokens, self._rows.row_limit_tokens)
        self.model = ServedModel(
            loaded.id, loaded.created, context_tokens, loaded.tokenizer, loaded.uncached
        )
        self._reader = RequestReader(loaded.tokenizer)
        limits = Limits(
            works.forward.vocabulary,
            context_tokens,
            loaded.tokenizer.token_characters,
            self._rows.can_reserve,
            is_cached=not loaded.uncached,
        )
        self._admission = Admission(pool, options, limits, clock)
        self._scheduler = Scheduler(self._admission, self._rows, options, clock)
        self.agents = Agents(pool, book, loaded.id, self._admission.is_busy, options.pin_limit)
        self.agents.resumable = self._rows.resumable
        self.agents.checkpoints = works.checkpoints
        self._expired_at_s = clock()
        keeper = works.keeper(self.agents, self._counters)
        parts = Parts(loaded, self._admission, self._scheduler, self._rows, keeper, self._counters)
        self._committer = Committer(parts, clock)

    def screen(self, characters: int) -> None:
        """Refuses at once what `submit` would refuse after the prompt was rendered and tokenised.

        `characters`: how long the texts of its messages are. Passing is no promise. Any thread.
        Raises: ContextExceeded, Overloaded, Draining.
        """
        self._admission.screen(characters)

    def submit(self, request: Request) -> None:
        """Lets the request in; its events come from `step`. Any thread.

        Raises: BadRequest, ContextExceeded, Overloaded, Draining; nothing is reserved then.
        """
        self._admission.submit(request, self._reader.read(request))

    def cancel(self, request_id: str) -> Phase | None:
        """Ends the request soon, with Finished(reason="cancelled"); a second call does nothing.

        What it computed stays in the pool. Returns what it was doing, None if it is not known or
        over. Any thread.
        """
        return self._admission.cancel(request_id)

    def drain(self) -> None:
        """Refuses new requests from now on; those let in go on. Any thread."""
        self._admission.drain()

    def check_pool(self) -> bool:
        """Whether the pool's invariants hold, as far as its index knows. Any thread."""
        try:
            self._pool.check()
        except PoolBroken:
            return False
        return True

    def verify_pool(self, first_frame: int, frames: int) -> Verified:
        """Reads and checks the payload of frames, see `Pool.verify`. Not on the engine thread."""
        return self._pool.verify(first_frame, frames)

    def wake(self) -> None:
        """Ends the current `wait`, or the next one. Any thread."""
        self._admission.wake()

    @property
    def status(self) -> EngineStatus:
        """What the engine is doing. Any thread."""
        # Before the rows: who is given one in between is counted twice and never overlooked.
        waiting = self._admission.waiting
        return EngineStatus(
            running=len(self._scheduler.rows),
            waiting=waiting,
            waiting_tokens=self._admission.waiting_tokens,
            draining=self._admission.is_draining,
            rows=self._rows.rows,
            capacity_tokens=self._rows.capacity,
            slab_bytes=self._rows.bytes,
            last_step_s=self._last_step_s,
            counters=replace(self._counters),
            pool=self._pool.stats(),
            uncached=self.model.uncached,
        )

    def wait(self, timeout_s: float) -> bool:
        """Waits until there is something to do; whether there is. Engine thread.

        Uses the first idle moment after work to check the pool, a longer one to write what a kill
        would cost, and one longer still to give a large slab's memory back.
        Raises: PoolBroken, which nothing but a bug can cause: better no service than wrong tokens.
        """
        self._expire_agents()
        if self._scheduler.rows or self._admission.wait(timeout_s):
            return True
        if self._checked_at_step != self._counters.steps:
            self._checked_at_step = self._counters.steps
            self._pool.check()
        idle_s = self._clock() - self._last_step_s
        if idle_s >= self._flush_s:
            self._flush()
        if idle_s >= self._slab_idle_s and self._rows.bytes > self._slab_idle_bytes:
            self._rows.reset()
            heap.trim()
        return False

    def step(self) -> list[Event]:
        """Runs one step and returns its events. Engine thread."""
        plan = self._scheduler.plan()
        began = time.perf_counter()
        outcome = self._runner.run(plan)
        seconds = time.perf_counter() - began
        self._scheduler.note(outcome, plan, seconds)
        if plan.decode:
            self._counters.note_decode(len(plan.decode), seconds)
        events = self._committer.commit(plan, outcome)
        self._counters.steps += 1
        self._last_step_s = self._clock()
        self._settling.go_on()
        return events

    def close(self) -> None:
        """Releases every lease and the slab, without further events; syncs and closes the pool.

        Engine thread; a second close does nothing.
        """
        self._admission.drain()
        for sequence in (*self._scheduler.clear(), *self._admission.take_all()):
            sequence.release()
        self._rows.reset()
        if not self._is_closed:
            self._is_closed = True
            self._close_stores()
            leave_thread()

    def _expire_agents(self) -> None:
        if self._clock() - self._expired_at_s < _EXPIRE_EVERY_S:
            return
        self._expired_at_s = self._clock()
        try:
            self.agents.expire()
        except CacheError as error:
            self._counters.book_errors += 1
            _log.warning("agents whose time is over are still there: %s", error)

    def _flush(self) -> None:
        if self._flushed_at_step == self._counters.steps:
            return
        self._flushed_at_step = self._counters.steps
        try:
            self._pool.flush()
        except CacheError as error:
            _log.warning("short blocks stay in memory: %s", error)

    def _close_stores(self) -> None:
        self.agents.close()
        if self.agents.checkpoints is not None:
            self.agents.checkpoints.close()
            for error in self.agents.checkpoints.take_errors():
                _log.warning("a state is not kept: %s", error)
        try:
            self._pool.sync()
        except CacheError as error:
            # Whole blocks were handed to the system already: this costs each agent a short one.
            _log.warning("the pool could not be synced: %s", error)
        self._pool.close()
        if self._book is not None:
            self._book.close()
