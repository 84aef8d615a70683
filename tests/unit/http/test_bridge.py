"""The bridge: threads, order of registration, and what happens when either side goes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from dovecote_engine.errors import ModelError, Overloaded
from dovecote_engine.request import Failed, Finished, Request, Started, TokenEvent
from dovecote_http import EngineBridge, EngineStopped
from tests.unit.http.scripted_engine import Script, ScriptedEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dovecote_http.engine_like import EngineLike

    Started_ = tuple[EngineBridge, ScriptedEngine]
    Begin = Callable[..., Awaitable[Started_]]

REQUEST = Request("r1", (1, 2))


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Starts bridges that end with the test."""
    bridges: list[EngineBridge] = []

    async def begin_one(script: Script | None = None) -> Started_:
        made: list[ScriptedEngine] = []

        def factory() -> EngineLike:
            made.append(ScriptedEngine(script))
            return made[0]

        bridges.append(EngineBridge(factory))
        await bridges[-1].start()
        return bridges[-1], made[0]

    yield begin_one
    for bridge in bridges:
        await bridge.stop()


async def test_events_come_in_order(begin: Begin) -> None:
    """Started, tokens, Finished; the engine checks that one thread does it all."""
    bridge, _ = await begin()
    async with await bridge.submit(REQUEST) as events:
        kinds = [type(await events.get()) for _ in range(4)]
    assert kinds == [Started, TokenEvent, TokenEvent, Finished]


async def test_a_factory_that_fails_fails_the_start() -> None:
    """The error comes out of start(), and the thread is gone."""

    def factory() -> EngineLike:
        raise ModelError("no such model")

    bridge = EngineBridge(factory)
    with pytest.raises(ModelError, match="no such model"):
        await bridge.start()
    assert not bridge.health.alive
    await bridge.stop()


async def test_a_start_that_is_given_up_closes_the_engine() -> None:
    """An engine that is ready too late is closed in its own thread."""
    go, made = threading.Event(), list[ScriptedEngine]()
    closed = threading.Event()

    class Late(ScriptedEngine):
        def close(self) -> None:
            super().close()
            closed.set()

    def factory() -> EngineLike:
        assert go.wait(20)
        made.append(Late())
        return made[0]

    bridge = EngineBridge(factory)
    starting = asyncio.ensure_future(bridge.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    go.set()
    assert await asyncio.to_thread(closed.wait, 20)


async def test_leaving_a_stream_early_cancels(begin: Begin) -> None:
    """The engine hears of it once; a stream read to its end is not cancelled."""
    bridge, engine = await begin(Script(holds_after=0))
    async with await bridge.submit(REQUEST) as events:
        await events.get()
    assert engine.cancelled == ["r1"]
    engine.release()
    async with await bridge.submit(Request("r2", (1,))) as events:
        while not isinstance(await events.get(), Finished):
            pass
    assert engine.cancelled == ["r1"]


async def test_a_refused_request_leaves_nothing_behind(begin: Begin) -> None:
    """The refusal comes out of submit(), and a drain finds no stream."""
    bridge, _ = await begin(Script(refusal=Overloaded("full", 1)))
    with pytest.raises(Overloaded):
        await bridge.submit(REQUEST)
    assert await bridge.drain(0.001)


async def test_leaving_during_admission_cancels_what_is_admitted(begin: Begin) -> None:
    """A submit that its caller no longer waits for is cancelled once it is through."""
    bridge, engine = await begin(Script(holds_before_start=True))
    engine.admits.clear()
    submitting = asyncio.ensure_future(bridge.submit(REQUEST))
    await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    engine.admits.set()
    await asyncio.to_thread(engine.wait_until, lambda: engine.cancelled == ["r1"])
    assert await bridge.drain(0.001)


async def test_a_crash_of_the_engine_fails_every_stream(begin: Begin) -> None:
    """Each stream gets Failed without internals, the log has them, and nothing new is taken."""
    bridge, engine = await begin(Script(crashes_after=0, holds_after=0))
    with capture_logs() as logs:
        async with (
            await bridge.submit(REQUEST) as one,
            await bridge.submit(Request("r2", (1,))) as two,
        ):
            assert [type(await events.get()) for events in (one, two)] == [Started, Started]
            engine.release()
            failures = [await events.get() for events in (one, two)]
    assert failures == [Failed(name, "The engine has failed.") for name in ("r1", "r2")]
    assert [line["event"] for line in logs] == ["engine_failed"]
    assert not bridge.health.alive
    assert engine.closed
    with pytest.raises(EngineStopped):
        await bridge.submit(REQUEST)


async def test_a_drain_waits_for_streams(begin: Begin) -> None:
    """It ends when the last stream has been left, not when the engine is done with it."""
    bridge, engine = await begin(Script(holds_after=1))
    async with await bridge.submit(REQUEST) as events:
        draining = asyncio.ensure_future(bridge.drain(20))
        await asyncio.to_thread(engine.wait_until, lambda: engine.status.draining)
        assert bridge.health.draining
        engine.release()
        while not isinstance(await events.get(), Finished):
            pass
        assert not draining.done()
    assert await draining


async def test_a_drain_that_takes_too_long_fails_what_is_left(begin: Begin) -> None:
    """The stream gets Failed, and its request is cancelled."""
    bridge, engine = await begin(Script(holds_before_start=True))
    async with await bridge.submit(REQUEST) as events:
        assert not await bridge.drain(0.001)
        assert isinstance(await events.get(), Failed)
    assert engine.cancelled == ["r1"]


async def test_stopping_closes_the_engine_and_is_idempotent(begin: Begin) -> None:
    """The thread ends at once although it slept, and open streams are failed."""
    bridge, engine = await begin(Script(holds_before_start=True))
    async with await bridge.submit(REQUEST) as events:
        await bridge.stop()
        assert isinstance(await events.get(), Failed)
    await bridge.stop()
    assert engine.closed
    with pytest.raises(EngineStopped):
        await bridge.status()
