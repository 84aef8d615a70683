"""One life of an engine: made, stepped and closed in a thread of its own.

    making --ready--> stepping --close()--> closed
       |                 `--an exception out of wait() or step()--> lost --> closed
       `--an exception out of the factory--> ready fails

MLX state belongs to its thread, so nothing of an engine outlives its thread: when `note_end` is
told its memory is free, unless somebody else holds it. A thread inside a step cannot be ended from
outside: `ask_to_end` is heeded when the step returns.

Does not know streams or HTTP, nor what follows a life: that is the bridge's.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import traceback
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dovecote_engine.request import Event
    from dovecote_http.bridge.engine_like import EngineLike

_WAIT_S = 0.5
"""How long the thread sleeps without work. `wake` ends it; this bounds a lost wake."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.bridge")


class Listener(Protocol):
    """Who hears of a life. Called in the event loop."""

    def take_events(self, life: EngineThread, events: Sequence[Event]) -> None:
        """The events of a step."""

    def note_loss(self, life: EngineThread) -> None:
        """An exception came out of the engine; `note_end` follows."""

    def note_end(self, life: EngineThread) -> None:
        """The engine is closed, and its pool with it."""


class EngineThread:
    """The thread and its engine. Event loop only, but for what runs in the thread itself."""

    def __init__(self, factory: Callable[[], EngineLike], listener: Listener) -> None:
        self._factory = factory
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._ending = threading.Event()
        self._step_began_s: float | None = None
        self.engine: EngineLike | None = None
        self.load_s = 0.0
        self.ready: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a factory that loads for minutes must not hold up an exit.
        self._thread = threading.Thread(target=self._run, name="dovecote-engine", daemon=True)
        self._thread.start()

    @property
    def step_age_s(self) -> float:
        """How long the current step takes, or 0; a wait that lasts twice its time counts as one."""
        began_s = self._step_began_s
        return 0.0 if began_s is None else max(0.0, time.monotonic() - began_s)

    def ask_to_end(self) -> None:
        """Closes the engine at its next chance."""
        self._ending.set()
        engine = self.engine
        if engine is not None:
            engine.wake()

    async def join(self, timeout_s: float) -> bool:
        """Whether the thread has ended within that time."""
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    # ---- the thread ----

    def _run(self) -> None:
        try:
            self._live()
        except Exception as error:  # noqa: BLE001 - a close that failed: the pool stays locked
            _log.error("engine_not_closed", exc_info=error)
        # A model is too large to wait for the next collection, and a successor may load another.
        self.engine = None
        gc.collect()
        self._post(partial(self._listener.note_end, self))

    def _live(self) -> None:
        began_s = time.monotonic()
        try:
            made = self._factory()
        except Exception as error:  # noqa: BLE001 - `ready` raises it, for who waits to tell
            _forget_locals(error)
            self._post(partial(_fail, self.ready, error))
            return
        self.load_s = time.monotonic() - began_s
        with closing(made) as engine:
            self.engine = engine
            self._post(partial(_settle, self.ready))
            try:
                self._step_until_asked(engine)
            except Exception as error:  # noqa: BLE001 - the engine loop's door: readiness tells
                self._step_began_s = None
                self._post(partial(self._listener.note_loss, self))
                # In this thread, since rendering a traceback would block the event loop.
                _log.error("engine_failed", exc_info=error)

    def _step_until_asked(self, engine: EngineLike) -> None:
        while not self._ending.is_set():
            # An idle engine writes to the disk, and that may hang as a step may.
            self._step_began_s = time.monotonic() + 2 * _WAIT_S
            if not engine.wait(_WAIT_S):
                continue
            self._step_began_s = time.monotonic()
            events = engine.step()
            self._step_began_s = None
            if events:
                self._post(partial(self._listener.take_events, self, events))
        self._step_began_s = None

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            if not self._loop.is_closed():  # closed: a forced exit went past this thread
                raise


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _fail(ready: asyncio.Future[None], error: Exception) -> None:
    if not ready.done():
        ready.set_exception(error)


def _forget_locals(error: BaseException) -> None:
    """Lets go of what the frames of a failed factory hold: half a model, perhaps."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
