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
from dovecote_http.bridge.bridge import RESTART_WINDOW_S
from tests.unit.http.lives import held, settled
from tests.unit.http.scripted_engine import Script, ScriptedEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dovecote_http.bridge.engine_like import EngineLike

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
            return made[-1]

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
    """Each stream gets Failed without internals, the log has them, and the engine is closed."""
    bridge, engine = await begin(Script(crashes_after=0, holds_after=0))
    with capture_logs() as logs:
        async with (
            await bridge.submit(REQUEST) as one,
            await bridge.submit(Request("r2", (1,))) as two,
        ):
            assert [type(await events.get()) for events in (one, two)] == [Started, Started]
            engine.release()
            failures = [await events.get() for events in (one, two)]
        await settled(bridge)
    assert failures == [Failed(name, "The engine has failed.") for name in ("r1", "r2")]
    assert engine.closed
    told = [line["event"] for line in logs]
    assert told == ["engine_failed", "engine_restarting", "engine_restarted"]


async def test_a_lost_engine_is_replaced_once() -> None:
    """The old one is closed before the factory is asked again; the second loss is for good."""
    made: list[ScriptedEngine] = []

    def factory() -> EngineLike:
        assert all(engine.closed for engine in made)
        made.append(ScriptedEngine(Script(crashes_after=0)))
        return made[-1]

    bridge = EngineBridge(factory)
    await bridge.start()
    with capture_logs() as logs:
        for name in ("r1", "r2"):
            async with await bridge.submit(Request(name, (1,))) as events:
                assert [type(await events.get()) for _ in range(2)] == [Started, Failed]
            await settled(bridge)
    assert len(made) == 2
    assert bridge.health.state == "down"
    assert logs[-1]["event"] == "engine_down"
    with pytest.raises(EngineStopped):
        await bridge.submit(REQUEST)
    await bridge.stop()


async def test_losses_that_are_far_apart_are_each_survived() -> None:
    """A loss more than RESTART_WINDOW_S after the last one counts as the first."""
    now = [0.0]
    bridge = EngineBridge(lambda: ScriptedEngine(Script(crashes_after=0)), lambda: now[0])
    await bridge.start()
    for name in ("r1", "r2", "r3"):
        now[0] += RESTART_WINDOW_S + 1
        async with await bridge.submit(Request(name, (1,))) as events:
            assert [type(await events.get()) for _ in range(2)] == [Started, Failed]
        await settled(bridge)
        assert bridge.health.alive
    await bridge.stop()


async def test_nothing_is_taken_while_another_engine_is_made() -> None:
    """New requests are told to come back; afterwards they are served."""
    bridge = EngineBridge(lambda: ScriptedEngine(Script(crashes_after=1)))
    await bridge.start()
    bridge._factory, go = held(ScriptedEngine)
    async with await bridge.submit(REQUEST) as events:
        while not isinstance(await events.get(), Failed):
            pass
    with pytest.raises(EngineStopped):
        await bridge.submit(REQUEST)
    assert bridge.health.hopeful
    go.set()
    await settled(bridge)
    async with await bridge.submit(REQUEST) as events:
        while not isinstance(await events.get(), Finished):
            pass
    await bridge.stop()


async def test_a_successor_that_cannot_be_made_leaves_it_down() -> None:
    """The log says so; nothing raises into the event loop."""
    bridge = EngineBridge(lambda: ScriptedEngine(Script(crashes_after=0)))
    await bridge.start()

    def fail() -> EngineLike:
        raise ModelError("no such model")

    bridge._factory = fail
    with capture_logs() as logs:
        async with await bridge.submit(REQUEST) as events:
            while not isinstance(await events.get(), Failed):
                pass
        await settled(bridge)
        assert bridge.health.state == "down"
        async with asyncio.timeout(20):  # the log is written by another thread
            while "engine_down" not in [log["event"] for log in logs]:
                await asyncio.sleep(0.005)
    await bridge.stop()


async def test_an_engine_lost_while_draining_is_not_replaced() -> None:
    """There is nothing left to serve."""
    script = Script(crashes_after=0, holds_after=0)
    engines: list[ScriptedEngine] = []

    def make() -> ScriptedEngine:
        engines.append(ScriptedEngine(script))
        return engines[-1]

    bridge = EngineBridge(make)
    await bridge.start()
    async with await bridge.submit(REQUEST) as events:
        draining = asyncio.ensure_future(bridge.drain(20))
        await asyncio.to_thread(engines[0].wait_until, lambda: engines[0].status.draining)
        engines[0].release()
        while not isinstance(await events.get(), Failed):
            pass
    assert await draining
    await settled(bridge)
    assert bridge.health.state == "down"
    await bridge.stop()


def state(bridge: EngineBridge) -> str:
    """The bridge's state now: another thread changes it."""
    return bridge.health.state


async def test_a_stuck_engine_is_given_up_and_replaced_when_it_comes_back(begin: Begin) -> None:
    """Its requests fail at once; its successor is made only when its step has returned."""
    bridge, engine = await begin(Script(sticks_after=0))
    async with await bridge.submit(REQUEST) as events:
        await events.get()
        while state(bridge) == "up":
            bridge.watch(0.01)
            await asyncio.sleep(0.005)
        assert await events.get() == Failed("r1", "The engine has failed.")
    assert engine.cancelled == ["r1"]
    assert state(bridge) == "stuck"
    assert not bridge.health.hopeful
    with pytest.raises(EngineStopped):
        await bridge.submit(REQUEST)
    engine.unstick.set()
    await settled(bridge)
    assert state(bridge) == "up"
    assert engine.closed


async def test_an_engine_stuck_while_idle_is_given_up_too(begin: Begin) -> None:
    """A wait that does not end is no better than such a step: a disk may hang under an idle one."""
    bridge, engine = await begin()
    wait = engine.wait

    def hang(timeout_s: float) -> bool:
        assert engine.unstick.wait(20)
        return wait(timeout_s)

    engine.wait = hang  # type: ignore[method-assign]
    while state(bridge) == "up":
        bridge.watch(0.01)
        await asyncio.sleep(0.005)
    assert state(bridge) == "stuck"
    engine.unstick.set()
    await settled(bridge)
    assert state(bridge) == "up"
    assert engine.closed


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
