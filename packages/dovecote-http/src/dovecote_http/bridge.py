"""The one place where asyncio and the engine's thread meet.

    event loop                              engine thread (`engine_thread.py`)
    submit() --- engine.submit() -------->  engine.wait()
    EventStream <-- call_soon_threadsafe -- engine.step()
    cancel() --- engine.cancel() -------->

    loading --> up --an exception, or a step beyond stall_s--> lost --closed--> loading, once
                                                                 `--closed--> down, the second time

B1 The engine is made, stepped and closed in one thread (MLX state belongs to its thread).
B2 A stream is registered before its request is submitted, so that no event can miss it.
B3 The loop thread alone touches streams.
B4 A stream that is left before its last event cancels its request.
B5 When the engine is lost, every open stream gets `Failed`, and none is opened until another is up.
B6 A lost engine is closed, and its pool with it, before the factory is asked for another. A stuck
   thread cannot be ended: until its step returns there is no other engine, since two would write to
   one pool; readiness and liveness tell, so that the process can be restarted from outside.

Does not know HTTP.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import structlog

from dovecote_engine.request import Event, Failed, Finished, Request
from dovecote_http.engine_thread import EngineThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from dovecote_http.engine_like import EngineLike, ModelLike, StatusLike

__all__ = ["BridgeHealth", "EngineBridge", "EngineStopped", "EventStream"]

_JOIN_S = 10.0
"""How long `stop` waits for a step that is under way."""

_RENDER_THREADS = 2
"""Tokenising 8k tokens takes about 10 ms and releases the GIL; two threads keep long ones apart."""

RESTART_WINDOW_S = 600.0
"""A second loss within that time is no accident: an engine that dies at each start would only wear
out disk and patience."""

EngineState = Literal["loading", "up", "stuck", "lost", "down"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.bridge")

T = TypeVar("T")


class EngineStopped(Exception):
    """There is no engine to ask: it has not started, has failed, or was stopped."""


@dataclass(frozen=True, slots=True)
class BridgeHealth:
    """`step_age_s`: how long the engine's current step takes, or 0."""

    state: EngineState
    draining: bool
    step_age_s: float

    @property
    def alive(self) -> bool:
        """There is an engine to ask."""
        return self.state == "up"

    @property
    def hopeful(self) -> bool:
        """There is one, or there will be without help from outside."""
        return self.state in ("up", "loading", "lost")


class EventStream:
    """The events of one request, in order. Leaving its `async with` cancels what still runs.

    Holds at most `max_tokens` + 2 events, however slow its reader.
    """

    def __init__(self, request_id: str, leave: Callable[[EventStream], None]) -> None:
        self.request_id = request_id
        self.ended = False
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._leave = leave

    async def get(self) -> Event:
        """The next event. Never returns after `Finished` or `Failed`."""
        return await self._events.get()

    def push(self, event: Event) -> None:
        """Appends an event (event loop only); those after the last one are dropped."""
        if not self.ended:
            self.ended = isinstance(event, Finished | Failed)
            self._events.put_nowait(event)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(self)


class EngineBridge:
    """Owns the engine's thread, and gives the event loop an asynchronous view of it.

    `factory` is called in that thread. Event loop only, but for what runs in the thread itself.
    """

    def __init__(
        self, factory: Callable[[], EngineLike], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._factory = factory
        self._clock = clock
        self._state: EngineState = "loading"
        self._engine: EngineLike | None = None
        self._life: EngineThread | None = None
        self._workers = ThreadPoolExecutor(_RENDER_THREADS, thread_name_prefix="dovecote-render")
        self._streams: dict[str, EventStream] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._lost_at_s: float | None = None

    async def start(self) -> None:
        """Returns once the engine is there. Raises: whatever the factory raised."""
        self._life = EngineThread(self._factory, self)
        try:
            self._engine = await self._life.ready
            self._state = "up"
        except BaseException:
            self._state = "down"
            self._life.ask_to_end()
            self._workers.shutdown(wait=False)
            raise

    async def stop(self) -> None:
        """Ends the engine thread; open streams get `Failed`. Idempotent."""
        self._fail_streams("The server has shut down.")
        self._state, self._engine = "down", None
        if self._life is not None:
            self._life.ask_to_end()
            if not await self._life.join(_JOIN_S):
                _log.warning("engine_thread_left", waited_s=_JOIN_S)
        self._workers.shutdown(wait=False)

    def watch(self, stall_s: float) -> None:
        """Gives up an engine whose step has taken longer than `stall_s`; to be called often."""
        if self._state == "up" and self._life is not None and self._life.step_age_s > stall_s:
            _log.error(
                "engine_stuck",
                step_s=round(self._life.step_age_s, 1),
                next="another engine is made once this step returns; if it never does, "
                "liveness stays 503 and the process has to be restarted",
            )
            self._life.ask_to_end()
            self._lose("stuck")

    async def drain(self, timeout_s: float) -> bool:
        """True when every open stream was left within `timeout_s`; new work is refused from now on.

        On False those left over have got `Failed` and their requests are cancelled.
        """
        self._draining = True
        if self._engine is not None:
            self._engine.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            self._fail_streams("The server is shutting down.")
            return False
        return True

    @property
    def health(self) -> BridgeHealth:
        """How the engine is."""
        age_s = 0.0 if self._life is None else self._life.step_age_s
        return BridgeHealth(self._state, self._draining, age_s)

    @property
    def model(self) -> ModelLike:
        """The served model. Raises: EngineStopped."""
        return self._running().model

    async def render(self, messages: Sequence[Mapping[str, object]]) -> tuple[int, ...]:
        """Token ids of the conversation. Raises: EngineStopped, BadRequest."""
        return await self._in_thread(partial(self.model.tokenizer.render, messages))

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a raw prompt. Raises: EngineStopped."""
        return await self._in_thread(partial(self.model.tokenizer.encode, text))

    async def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids. Raises: EngineStopped."""
        return await self._in_thread(partial(self.model.tokenizer.decode, tokens))

    async def status(self) -> StatusLike:
        """A snapshot of the engine. Raises: EngineStopped."""
        engine = self._running()
        return await self._in_thread(lambda: engine.status)

    async def ask(self, call: Callable[[EngineLike], T]) -> T:
        """What `call`, which any thread may make, gets from the engine; it may take long.

        Raises: EngineStopped, and whatever `call` raises.
        """
        return await asyncio.to_thread(call, self._running())

    async def submit(self, request: Request) -> EventStream:
        """The events of an admitted request.

        Raises: EngineStopped, and what the engine's admission raises; nothing then runs.
        """
        engine = self._running()
        stream = EventStream(request.id, self._leave)
        self._streams[request.id] = stream  # B2
        self._idle.clear()
        admission = asyncio.ensure_future(self._in_thread(partial(engine.submit, request)))
        try:
            await asyncio.shield(admission)
        except BaseException:
            self._forget(stream)
            # The caller has gone, yet the thread will still submit: cancel what it submits.
            admission.add_done_callback(partial(_cancel_admitted, engine, request.id))
            raise
        return stream

    def screen(self, characters: int) -> None:
        """Refuses what cannot be let in, whatever its tokens are, before any work is done for it.

        Raises: EngineStopped, and what the engine's admission raises.
        """
        self._running().screen(characters)

    def cancel(self, request_id: str) -> str | None:
        """Gives a request up; its stream, if any, gets the events that still follow.

        Returns what it was doing, None if it is not running.
        """
        return None if self._engine is None else self._engine.cancel(request_id)

    def _running(self) -> EngineLike:
        if self._engine is None:
            raise EngineStopped("The engine is not running.")
        return self._engine

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._workers, call)

    def _leave(self, stream: EventStream) -> None:
        self._forget(stream)
        if not stream.ended:
            self.cancel(stream.request_id)  # B4

    def _forget(self, stream: EventStream) -> None:
        self._streams.pop(stream.request_id, None)
        if not self._streams:
            self._idle.set()

    def _fail_streams(self, message: str) -> None:
        for stream in self._streams.values():
            if not stream.ended:
                self.cancel(stream.request_id)
                stream.push(Failed(stream.request_id, message))

    # ---- what the engine's thread tells, in the event loop ----

    def take_events(self, life: EngineThread, events: Iterable[Event]) -> None:
        """Hands the events of a step to their streams."""
        if life is not self._life:
            return
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is not None:
                stream.push(event)

    def note_loss(self, life: EngineThread) -> None:
        """The engine has failed; it is being closed."""
        if life is self._life and self._state == "up":
            self._lose("lost")

    def note_end(self, life: EngineThread) -> None:
        """The engine is closed: time for another one, unless that is what was wanted."""
        if life is self._life and self._state in ("lost", "stuck"):
            self._replace()

    def _lose(self, state: EngineState) -> None:
        self._fail_streams("The engine has failed.")  # B5
        self._state, self._engine = state, None

    def _replace(self) -> None:
        before, self._lost_at_s = self._lost_at_s, self._clock()
        if self._draining:
            self._state = "down"
        elif before is not None and self._lost_at_s - before < RESTART_WINDOW_S:
            self._state = "down"
            _log.error(
                "engine_down",
                reason="lost twice within the window; it is not restarted again",
                window_s=RESTART_WINDOW_S,
                next="find the cause in the log above, then restart the process",
            )
        else:
            _log.warning("engine_restarting")
            self._state = "loading"
            self._life = EngineThread(self._factory, self)
            self._life.ready.add_done_callback(partial(self._take_up, self._life))

    def _take_up(self, life: EngineThread, ready: asyncio.Future[EngineLike]) -> None:
        error = ready.exception()
        if error is not None:
            self._state = "down"
            _log.error("engine_down", reason="another one could not be made", exc_info=error)
        elif life is self._life and self._state == "loading":
            self._state, self._engine = "up", ready.result()
            if self._draining:
                self._engine.drain()
            _log.info("engine_restarted")


def _cancel_admitted(engine: EngineLike, request_id: str, admission: asyncio.Future[None]) -> None:
    if not admission.cancelled() and admission.exception() is None:
        engine.cancel(request_id)
