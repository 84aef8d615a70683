"""The one place where asyncio and the engine's thread meet.

    event loop                              engine thread (`engine_thread.py`)
    submit() --- engine.submit() -------->  engine.wait()
    EventStream <-- call_soon_threadsafe -- engine.step()
    cancel() --- engine.cancel() -------->

    loading --> up --an exception, or a step beyond stall_s--> lost --closed--> loading, once
                                                                 `--closed--> down, the second time
    up --exchange()--> exchanging --another engine is made--------> up
                           `--it cannot be, but the one before can--> up
                           `--neither can--> down

B1 The engine is made, stepped and closed in one thread (MLX state belongs to its thread).
B2 A stream is registered before its request is submitted, so that no event can miss it.
B3 The loop thread alone touches streams.
B4 A stream that is left before its last event cancels its request.
B5 When the engine is lost, every open stream gets `Failed`, and none is opened until another is up.
B6 A lost engine is closed, and its pool with it, before the factory is asked for another. A stuck
   thread cannot be ended: until its step returns there is no other engine, since two would write to
   one pool; readiness and liveness tell, so that the process can be restarted from outside.
B7 In an exchange the engine before is closed and its memory free before another one is made, since
   two models may not fit; a request that was rendered for one model is never submitted to another.

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

from dovecote_engine.request import Failed
from dovecote_http.bridge.door import Closure, DoorClosed
from dovecote_http.bridge.engine_thread import EngineThread
from dovecote_http.bridge.event_stream import EventStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from dovecote_engine.request import Event, Request
    from dovecote_engine.served import PromptTokenizer
    from dovecote_http.bridge.door import ClosureCode
    from dovecote_http.bridge.engine_like import EngineLike, ModelLike, StatusLike

__all__ = ["BridgeHealth", "EngineBridge", "EngineStopped", "EventStream", "Phase"]

_JOIN_S = 10.0
"""How long `stop` waits for a step that is under way."""

_CLOSE_S = 120.0
"""How long an exchange waits for the engine before to sync its pool and close."""

_RENDER_THREADS = 2
"""Tokenising 8k tokens takes about 10 ms and releases the GIL; two threads keep long ones apart."""

RESTART_WINDOW_S = 600.0
"""A second loss within that time is no accident: an engine that dies at each start would only wear
out disk and patience."""

EngineState = Literal["loading", "up", "stuck", "lost", "down", "exchanging"]

Phase = Literal["draining", "closing", "loading", "rolling_back"]
"""Where an exchange is."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.bridge")

T = TypeVar("T")


class EngineStopped(Exception):
    """There is no engine to ask: it has not started, has failed, or was stopped."""


@dataclass(frozen=True, slots=True)
class BridgeHealth:
    """`step_age_s`: how long the engine's current step takes, or 0.

    `draining`: the server shuts down. `closure`: why else no new request is taken, if none is.
    """

    state: EngineState
    draining: bool
    step_age_s: float
    closure: Closure | None = None

    @property
    def alive(self) -> bool:
        """There is an engine to ask."""
        return self.state == "up"

    @property
    def hopeful(self) -> bool:
        """There is one, or there will be without help from outside."""
        return self.state in ("up", "loading", "lost", "exchanging")


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
        self._closures: dict[str, Closure] = {}
        self._phase: Phase | None = None
        self._load_s = 0.0
        self._lost_at_s: float | None = None

    async def start(self) -> None:
        """Returns once the engine is there. Raises: whatever the factory raised."""
        self._life = EngineThread(self._factory, self)
        try:
            await self._life.ready
            self._take_up(self._life)
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
        return await self._empty(timeout_s, "The server is shutting down.")

    def close_door(self, closure: Closure) -> None:
        """Takes no new requests until `open_door` of its code; those under way go on."""
        self._closures[closure.code] = closure

    def open_door(self, code: ClosureCode) -> None:
        """Takes new requests again, unless there is another reason not to."""
        self._closures.pop(code, None)

    async def exchange(self, factory: Callable[[], EngineLike], drain_s: float) -> None:
        """Has `factory` make the engine that serves from now on, in place of the one there is.

        Close the door first. Requests under way have `drain_s` to end; those left over get
        `Failed`. A loss later on makes another one with this factory.
        Raises: whatever `factory` raised, and then the engine before is back; EngineStopped if it
        could not be ended or made again, or the server shuts down.
        """
        try:
            await self._exchange(factory, drain_s)
        finally:
            self._phase = None

    @property
    def health(self) -> BridgeHealth:
        """How the engine is."""
        age_s = 0.0 if self._life is None else self._life.step_age_s
        closure = next(reversed(self._closures.values()), None)
        return BridgeHealth(self._state, self._draining, age_s, closure)

    @property
    def phase(self) -> Phase | None:
        """What the exchange under way is at, None if there is none."""
        return self._phase

    @property
    def load_s(self) -> float:
        """How long it took to make the engine that was made last."""
        return self._load_s

    @property
    def model(self) -> ModelLike:
        """The served model. Raises: EngineStopped, DoorClosed while it is being exchanged."""
        return self._running().model

    def admitting(self) -> ModelLike:
        """The model that a new request would go to. Raises: EngineStopped, DoorClosed."""
        self._check_door()
        return self._running().model

    async def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        salt: bytes = b"",
        *,
        continues: bool = False,
    ) -> tuple[int, ...]:
        """Token ids of the conversation. Raises: EngineStopped, BadRequest."""
        render = partial(self.model.tokenizer.render, messages, tools, salt, continues=continues)
        return await self._in_thread(render)

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a raw prompt. Raises: EngineStopped."""
        return await self._in_thread(partial(self.model.tokenizer.encode, text))

    async def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids. Raises: EngineStopped."""
        return await self._in_thread(partial(self.model.tokenizer.decode, tokens))

    async def tokenize(self, ask: Callable[[PromptTokenizer], T]) -> T:
        """What `ask` gets from the served model's tokenizer, in a thread. Raises: EngineStopped."""
        return await self._in_thread(partial(ask, self.model.tokenizer))

    async def status(self) -> StatusLike:
        """A snapshot of the engine. Raises: EngineStopped."""
        engine = self._running()
        return await self._asked(engine, self._in_thread(lambda: engine.status))

    async def ask(self, call: Callable[[EngineLike], T]) -> T:
        """What `call`, which any thread may make, gets from the engine; it may take long.

        Raises: EngineStopped, and whatever `call` raises.
        """
        engine = self._running()
        return await self._asked(engine, asyncio.to_thread(call, engine))

    async def submit(self, request: Request, model: ModelLike | None = None) -> EventStream:
        """The events of an admitted request. `model`: the one that it was rendered for (B7).

        Raises: EngineStopped, DoorClosed, and what the engine's admission raises; nothing then
        runs.
        """
        self._check_door()
        engine = self._running()
        if model is not None and model is not engine.model:
            raise EngineStopped("The model was exchanged meanwhile.")
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

        Raises: EngineStopped, DoorClosed, and what the engine's admission raises.
        """
        self._check_door()
        self._running().screen(characters)

    def cancel(self, request_id: str) -> str | None:
        """Gives a request up; its stream, if any, gets the events that still follow.

        Returns what it was doing, None if it is not running.
        """
        return None if self._engine is None else self._engine.cancel(request_id)

    def _check_door(self) -> None:
        for closure in self._closures.values():
            raise DoorClosed(closure)

    def _running(self) -> EngineLike:
        if self._engine is None:
            self._check_door()
            raise EngineStopped("The engine is not running.")
        return self._engine

    async def _asked(self, engine: EngineLike, answer: Awaitable[T]) -> T:
        """The answer of an engine. One that was closed meanwhile may give any error."""
        try:
            return await answer
        except Exception as error:
            if engine is self._engine:
                raise
            raise EngineStopped("The engine was closed meanwhile.") from error

    async def _empty(self, timeout_s: float, message: str) -> bool:
        """Whether every stream was left within that time; those that were not get `Failed`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            self._fail_streams(message)
            return False
        return True

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

    # ---- an exchange ----

    async def _exchange(self, factory: Callable[[], EngineLike], drain_s: float) -> None:
        self._phase = "draining"
        await self._empty(drain_s, "The model is being exchanged.")
        self._check_going_on()
        self._phase = "closing"
        await self._end_engine()
        self._phase = "loading"
        error = await self._make(factory)
        if error is None:
            self._factory, self._lost_at_s = factory, None
            return
        self._phase = "rolling_back"
        worse = await self._make(self._factory)
        if worse is not None:
            self._state = "down"
            _log.error("engine_down", reason="the one before cannot be made")
            raise EngineStopped("The engine before cannot be made again.") from worse
        raise error

    def _check_going_on(self) -> None:
        if self._draining:
            raise EngineStopped("The server is shutting down.")

    async def _end_engine(self) -> None:
        """Closes the engine, if there is one: its pool is synced, its memory free."""
        self._state, self._engine = "exchanging", None
        if self._life is None:
            return
        self._life.ask_to_end()
        if not await self._life.join(_CLOSE_S):
            self._state = "stuck"  # if it ends after all, `note_end` has another one made
            raise EngineStopped("The running engine could not be ended.")

    async def _make(self, factory: Callable[[], EngineLike]) -> BaseException | None:
        """None once an engine is up; else why there is none, and then nothing of it is left."""
        if self._state != "exchanging":
            raise EngineStopped("The server is shutting down.")
        self._life = life = EngineThread(factory, self)
        await asyncio.wait((life.ready,))
        if self._state != "exchanging":
            raise EngineStopped("The server is shutting down.")
        error = life.ready.exception()
        if error is None:
            self._take_up(life)
        else:
            await life.join(_CLOSE_S)
        return error

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
        if life is self._life and self._state == "up":  # it ended before anybody was told
            self._lose("lost")
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
            self._life.ready.add_done_callback(partial(self._take_next, self._life))

    def _take_next(self, life: EngineThread, ready: asyncio.Future[None]) -> None:
        error = ready.exception()
        if life is not self._life or self._state != "loading":
            return
        if error is not None:
            self._state = "down"
            # In a thread, since rendering a traceback would block the event loop.
            reason = "another one could not be made"
            self._workers.submit(_log.error, "engine_down", reason=reason, exc_info=error)
        else:
            self._take_up(life)
            _log.info("engine_restarted")

    def _take_up(self, life: EngineThread) -> None:
        """The engine is there. One that has ended at once is lost, which nobody was told yet."""
        self._state, self._engine, self._load_s = "up", life.engine, life.load_s
        if self._engine is None:
            self._lose("lost")
            self._replace()
        elif self._draining:
            self._engine.drain()


def _cancel_admitted(engine: EngineLike, request_id: str, admission: asyncio.Future[None]) -> None:
    if not admission.cancelled() and admission.exception() is None:
        engine.cancel(request_id)
