"""The slab's memory after the work is done: large ones are given back, small ones are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_engine
from tiny_engine import (
    BLOCK,
    LOADED,
    Answers,
    Kind,
    assert_idle,
    build,
    cached_tokens,
    drive,
    greedy,
    open_pool,
    reference,
)

from dovecote_engine.engine import Engine
from dovecote_engine.options import EngineOptions

PROMPT = tuple((3 + 7 * n) % 100 for n in range(5 * BLOCK))
MINUTE = 60.0
SUPPORT = Path(tiny_engine.__file__).parent
GIVE_BACK = """
import numpy as np
import psutil
from tiny_engine import LOADED, open_pool
from dovecote_engine.engine import Engine
from dovecote_engine.options import EngineOptions

process, now = psutil.Process(), [0.0]
loaded = LOADED["plain"]()
pool = open_pool(geometry=loaded.geometry)
engine = Engine(loaded, pool, None, EngineOptions(slab_idle_bytes=0), lambda: now[0])
np.ones(30 << 20, np.uint8)  # freed at once: from now on, glibc keeps pieces of that size
engine._rows.reserve(16, 4096)
above = np.ones(1 << 20, np.uint8)  # so that the slab is not at the heap's end
size, before = engine.status.slab_bytes, process.memory_info().rss
now[0] = 60.0
assert not engine.wait(0)
print(size, before, process.memory_info().rss)
"""


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _engine(clock: Clock, kind: Kind = "plain", idle_bytes: int = 0) -> Engine:
    loaded = LOADED[kind]()
    options = EngineOptions(slab_idle_bytes=idle_bytes)
    return Engine(loaded, open_pool(geometry=loaded.geometry), None, options, clock)


@pytest.mark.parametrize("kind", ("plain", "windowed", "recurrent"))
def test_an_idle_minute_gives_the_slab_back(kind: Kind) -> None:
    """Not before, and the next turn finds all that the pool holds, in a slab made anew."""
    clock = Clock()
    engine = _engine(clock, kind)
    first = drive(engine, greedy("first", PROMPT, 9))["first"]
    clock.now = MINUTE - 1
    assert not engine.wait(0)
    assert engine.status.slab_bytes > 0
    clock.now = MINUTE
    assert not engine.wait(0)
    assert (engine.status.slab_bytes, engine.status.rows) == (0, 0)
    history = (*PROMPT, *first.tokens, 5)
    answer = drive(engine, greedy("next", history, 9))["next"]
    assert answer.tokens == reference(history, 9, kind)
    assert cached_tokens(answer) == (0 if kind == "recurrent" else len(history) - 2)
    engine.close()


def test_a_minute_of_work_is_not_an_idle_one() -> None:
    """However long a step takes, rows and who waits for one keep what they have."""
    clock = Clock()
    engine, answers = _engine(clock), Answers()
    engine.submit(greedy("long", PROMPT, 40))
    while engine.wait(0):
        answers.step(engine)
        assert engine.status.slab_bytes > 0
        clock.now += 2 * MINUTE
    assert answers["long"].tokens == reference(PROMPT, 40)
    assert_idle(engine)
    engine.close()


def test_a_small_slab_is_kept() -> None:
    """Making it anew would cost the next turn more than its memory is worth."""
    clock = Clock()
    engine = _engine(clock, idle_bytes=1 << 20)
    drive(engine, greedy("small", PROMPT, 9))
    clock.now = 100 * MINUTE
    assert not engine.wait(0)
    assert 0 < engine.status.slab_bytes <= 1 << 20
    engine.close()


def test_what_is_given_back_goes_back_to_the_system() -> None:
    """The process is smaller by the slab, also where its planes are no larger than what the C
    library likes to keep for itself. In a process of its own: what other tests freed would count.
    """
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    told = subprocess.check_output([sys.executable, "-c", GIVE_BACK], text=True, env=environment)
    size, before, after = map(int, told.split())
    assert size >= 64 << 20
    assert after <= before - size * 3 // 4


def test_agents_that_come_once_leave_nothing_in_memory() -> None:
    """Names, accounts and cancellations of hundreds of agents are gone when they are."""
    engine = build(max_rows=4, max_waiting=64)
    for batch in range(8):
        requests = [
            greedy(f"r{batch}-{n}", PROMPT[: 1 + n % 20], 1, agent=f"agent {batch}-{n}")
            for n in range(25)
        ]
        drive(engine, *requests)
        for request in requests:
            assert engine.cancel(request.id) is None
    drive(engine, greedy("last", PROMPT, 1))
    admission, turns = engine._admission, engine._scheduler._turns
    assert not admission._live
    assert not admission._cancelled
    assert len(turns._accounts._computed) <= 25
    engine.close()
