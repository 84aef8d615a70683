"""The bridge over the real engine, whose runner is made to raise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tiny_engine import build, cached_tokens, drive, greedy, open_pool, reference

from dovecote_cache import Pool, PoolBroken
from dovecote_engine.request import Failed, Finished, Started, TokenEvent
from dovecote_http import EngineBridge, EngineStopped
from tests.unit.http.lives import settled

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote_engine.engine import Engine
    from dovecote_engine.request import Request
    from dovecote_engine.scheduling.plan import Outcome, Plan

PROMPT = tuple(range(50))


def _break(engine: Engine, after: int) -> None:
    """The runner raises at its step number `after`."""
    run, steps = engine._runner.run, iter(range(1000))

    def run_or_raise(plan: Plan) -> Outcome:
        if next(steps) == after:
            raise ZeroDivisionError("a secret of the engine")
        return run(plan)

    engine._runner.run = run_or_raise  # type: ignore[method-assign]


async def test_a_pool_found_broken_while_idle_takes_its_engine_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the idle moment after work fails: another engine opens the pool file anew."""
    made: list[Engine] = []

    def factory() -> Engine:
        made.append(build(pool=open_pool(tmp_path / "pool")))
        return made[-1]

    bridge = EngineBridge(factory)
    await bridge.start()
    check, broken = Pool.check, iter((PoolBroken(None),))

    def check_or_break(pool: Pool) -> None:
        if (error := next(broken, None)) is not None:
            raise error
        check(pool)

    monkeypatch.setattr(Pool, "check", check_or_break)
    tokens, _ = await _answer(bridge, greedy("first", PROMPT, 5))
    async with asyncio.timeout(20):
        while len(made) < 2:
            await asyncio.sleep(0.005)
    await settled(bridge)
    assert bridge.health.state == "up"
    again, finished = await _answer(bridge, greedy("again", PROMPT, 5))
    assert again == tokens == reference(PROMPT, 5)
    assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens == len(PROMPT) - 1
    await bridge.stop()


@pytest.mark.parametrize("events_read", (0, 3))
async def test_a_client_that_leaves_gives_everything_back(events_read: int) -> None:
    """Whether it leaves the queue or a running answer: no row, lease or promise is left, and its
    next try finds what was computed.
    """
    made: list[Engine] = []

    def factory() -> Engine:
        made.append(build(max_rows=1))
        return made[-1]

    bridge = EngineBridge(factory)
    await bridge.start()
    before = _held(made[0])
    async with await bridge.submit(greedy("left", PROMPT, 400)) as events:
        while events_read and isinstance(await events.get(), Started | TokenEvent):
            events_read -= 1
    async with asyncio.timeout(20):
        while _held(made[0]) != before:
            await asyncio.sleep(0.005)
    after = made[0].status.pool
    assert after.cached + after.free == after.frames
    tokens, finished = await _answer(bridge, greedy("again", PROMPT, 5))
    assert tokens == reference(PROMPT, 5)
    assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens == min(len(PROMPT) - 1, after.tokens)
    await bridge.stop()


def _held(engine: Engine) -> tuple[int, ...]:
    """What requests hold: rows, places in the queue, leases and frames. No instant's snapshot."""
    status = engine.status
    pool = status.pool
    return (status.running, status.waiting, pool.leases, pool.leased, pool.promised)


async def _answer(bridge: EngineBridge, request: Request) -> tuple[list[int], Finished | Failed]:
    tokens = []
    async with await bridge.submit(request) as events:
        while True:
            event = await events.get()
            if isinstance(event, TokenEvent):
                tokens.append(event.token)
            if isinstance(event, Finished | Failed):
                return tokens, event


async def test_a_lost_engine_gives_its_pool_to_the_next_one(tmp_path: Path) -> None:
    """The pool file is closed and opened again, and what the lost engine had computed is there."""
    made: list[Engine] = []

    def factory() -> Engine:
        made.append(build(pool=open_pool(tmp_path / "pool"), max_chunk_tokens=16))
        return made[-1]

    bridge = EngineBridge(factory)
    await bridge.start()
    _break(made[0], after=6)
    _, failed = await _answer(bridge, greedy("lost", PROMPT, 20))
    assert isinstance(failed, Failed)
    assert "secret" not in failed.message
    await settled(bridge)
    tokens, finished = await _answer(bridge, greedy("again", PROMPT, 20))
    assert tokens == reference(PROMPT, 20)
    assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens >= 48
    status = await bridge.status()
    assert (status.running, status.waiting) == (0, 0)
    _break(made[1], after=0)
    await _answer(bridge, greedy("lost too", PROMPT, 20))
    await settled(bridge)
    assert bridge.health.state == "down"
    with pytest.raises(EngineStopped):
        await bridge.submit(greedy("never", PROMPT, 20))
    await bridge.stop()
    # Down as it is, it has closed its pool: another process could open it.
    engine = build(pool=open_pool(tmp_path / "pool"))
    assert cached_tokens(drive(engine, greedy("later", PROMPT, 1))["later"]) >= 48
    engine.close()
