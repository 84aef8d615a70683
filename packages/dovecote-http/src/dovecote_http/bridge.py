"""The one place where asyncio and the engine's thread meet.

    event loop                              engine thread
    submit() --- engine.submit() -------->  engine.wait()
    EventStream <-- call_soon_threadsafe -- engine.step()
    cancel() --- engine.cancel() -------->

B1 The engine is made, stepped and closed in one thread (MLX state belongs to its thread).
B2 A stream is registered before its request is submitted, so that no event can miss it.
B3 The loop thread alone touches streams.
B4 A stream that is left before its last event cancels its request.
B5 When the engine is lost, every open stream gets `Failed`, and no new one is opened.

Does not know HTTP.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
from dovecote_engine.request import Event, Failed, Finished, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from dovecote_http.engine_like import AgentLike, EngineLike, ModelLike, StatusLike

__all__ = ["BridgeHealth", "EngineBridge", "EngineStopped", "EventStream"]

_WAIT_S = 0.5
"""How long the engine thread sleeps without work. `wake` ends it; this bounds a lost wake."""

_JOIN_S = 10.0
"""How long `stop` waits for a step that is under way."""

_RENDER_THREADS = 2
"""Tokenising 8k tokens takes about 10 ms and releases the GIL; two threads keep long ones apart."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.bridge")

T = TypeVar("T")


class EngineStopped(Exception):  # noqa: N818 - a state, like asyncio's QueueEmpty
    """There is no engine to ask: it has not started, has failed, or was stopped."""


@dataclass(frozen=True, slots=True)
class BridgeHealth:
    """`alive`: the engine thread runs. `step_age_s`: how long its current step takes, or 0."""

    alive: bool
    draining: bool
    step_age_s: float


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

    def __init__(self, factory: Callable[[], EngineLike]) -> None:
        self._factory = factory
        self._engine: EngineLike | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers = ThreadPoolExecutor(_RENDER_THREADS, thread_name_prefix="dovecote-render")
        self._streams: dict[str, EventStream] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = threading.Event()
        self._draining = False
        self._step_began_s: float | None = None

    async def start(self) -> None:
        """Returns once the engine is there. Raises: whatever the factory raised."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[EngineLike] = self._loop.create_future()
        # A daemon: a factory that loads for minutes must not hold up an exit.
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="dovecote-engine", daemon=True
        )
        self._thread.start()
        try:
            self._engine = await ready
        except BaseException:
            self._stopping.set()
            self._workers.shutdown(wait=False)
            raise

    async def stop(self) -> None:
        """Ends the engine thread; open streams get `Failed`. Idempotent."""
        self._fail_streams("The server has shut down.")
        self._stopping.set()
        if self._engine is not None:
            self._engine.wake()
            self._engine = None
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _JOIN_S)
            if self._thread.is_alive():
                _log.warning("engine_thread_left", waited_s=_JOIN_S)
        self._workers.shutdown(wait=False)

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
        """How the engine thread is."""
        began_s = self._step_began_s
        age_s = 0.0 if began_s is None else time.monotonic() - began_s
        return BridgeHealth(self._engine is not None, self._draining, age_s)

    @property
    def model(self) -> ModelLike:
        """The served model. Raises: EngineStopped."""
        return self._running().model

    async def render(self, messages: Sequence[Mapping[str, object]]) -> tuple[int, ...]:
        """Token ids of the conversation. Raises: EngineStopped, BadRequest."""
        return await self._in_thread(partial(self.model.tokenizer.render, messages))

    async def status(self) -> StatusLike:
        """A snapshot of the engine. Raises: EngineStopped."""
        engine = self._running()
        return await self._in_thread(lambda: engine.status)

    async def agents(self) -> Sequence[AgentLike]:
        """The agents' book. Raises: EngineStopped."""
        return await self._in_thread(self._running().agents)

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

    def cancel(self, request_id: str) -> None:
        """Gives a request up; its stream, if any, gets the events that still follow."""
        if self._engine is not None:
            self._engine.cancel(request_id)

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

    def _dispatch(self, events: Iterable[Event]) -> None:
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is not None:
                stream.push(event)

    def _lose(self, ready: asyncio.Future[EngineLike], error: Exception) -> None:
        if not ready.done():
            ready.set_exception(error)
            return
        self._engine = None
        self._step_began_s = None
        self._fail_streams("The engine has failed.")  # B5

    # ---- engine thread ----

    def _run(self, ready: asyncio.Future[EngineLike]) -> None:
        try:
            with closing(self._factory()) as engine:
                self._post(partial(_settle, ready, engine))
                self._step_until_stopped(engine)
        except Exception as error:  # noqa: BLE001 - the engine loop's door: readiness tells
            self._post(partial(self._lose, ready, error))
            # In this thread, since rendering a traceback would block the event loop.
            _log.error("engine_failed", exc_info=error)

    def _step_until_stopped(self, engine: EngineLike) -> None:
        while not self._stopping.is_set():
            if not engine.wait(_WAIT_S):
                continue
            self._step_began_s = time.monotonic()
            events = engine.step()
            self._step_began_s = None
            if events:
                self._post(partial(self._dispatch, events))

    def _post(self, call: Callable[[], None]) -> None:
        assert self._loop is not None, "the thread is started by start()"  # noqa: S101
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            if not self._loop.is_closed():  # closed: a forced exit went past this thread
                raise


def _settle(ready: asyncio.Future[EngineLike], engine: EngineLike) -> None:
    if not ready.done():
        ready.set_result(engine)


def _cancel_admitted(engine: EngineLike, request_id: str, admission: asyncio.Future[None]) -> None:
    if not admission.cancelled() and admission.exception() is None:
        engine.cancel(request_id)
