"""A pool that is smaller than what it is asked to keep: it keeps what it can, and never refuses."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from tiny_engine import (
    BLOCK,
    GEOMETRY,
    TinyLoaded,
    build,
    cached_tokens,
    drive,
    greedy,
    open_pool,
    reference,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dovecote_cache import Pool

FRAMES = 12
MEMORY_SLACK = 16 << 20


def small_pool(path: Path, frames: int = FRAMES) -> Pool:
    return open_pool(path / "a.pool", GEOMETRY.file_bytes("exact", frames * BLOCK))


def prompt_of(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


@contextmanager
def no_file_may_be_written() -> Iterator[None]:
    """Every write fails, as on a disk that is full (or, to the pool, one that fails)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("frames", (1, 5, FRAMES))
def test_a_prompt_larger_than_the_pool_keeps_its_longest_prefix(
    tmp_path: Path, frames: int
) -> None:
    """The next turn finds all that the pool can hold, and its answer is the right one."""
    engine = build(pool=small_pool(tmp_path, frames))
    prompt = prompt_of(20 * BLOCK + 3)
    first = drive(engine, greedy("one", prompt, 5))["one"]
    assert first.tokens == reference(prompt, 5)
    history = (*prompt, *first.tokens, 1, 2)
    for turn in ("two", "three"):
        answer = drive(engine, greedy(turn, history, 5))[turn]
        assert cached_tokens(answer) == frames * BLOCK
        assert answer.tokens == reference(history, 5)
    assert engine.status.pool.cached == frames
    assert engine.status.counters.seal_errors == 0
    engine.close()


def test_a_conversation_that_outgrows_the_pool_stays_warm(tmp_path: Path) -> None:
    """There is no cliff: turn by turn it finds the pool's worth or all of its history."""
    engine = build(pool=small_pool(tmp_path))
    history: list[int] = []
    for turn in range(12):
        history += prompt_of(BLOCK + 3, turn)
        answer = drive(engine, greedy("turn", history, 5))["turn"]
        before = len(history) - BLOCK - 3
        assert cached_tokens(answer) >= min(before - 1, (FRAMES - 1) * BLOCK) - BLOCK
        assert answer.tokens == reference(tuple(history), 5)
        history += answer.tokens
    assert len(history) > 1.5 * FRAMES * BLOCK
    engine.close()


def test_ten_times_more_agents_than_fit_are_served(tmp_path: Path) -> None:
    """Every request succeeds, the pool stays sound, and neither file nor memory grows."""
    engine = build(pool=small_pool(tmp_path, 2 * FRAMES))
    path = tmp_path / "a.pool"
    size, process, warm = path.stat().st_size, psutil.Process(), 0
    agents = 10 * 2 * FRAMES // 4
    for turn in range(2):
        for agent in range(agents):
            prompt = prompt_of(3 * BLOCK + 2 + turn, agent)
            answer = drive(engine, greedy("turn", prompt, 4, f"agent-{agent}"))["turn"]
            assert answer.tokens == reference(prompt, 4)
            assert path.stat().st_size == size
        warm = warm or process.memory_info().rss
    assert process.memory_info().rss < warm + MEMORY_SLACK
    stats = engine.status.pool
    assert stats.evicted_blocks >= agents
    assert stats.cached + stats.free == stats.frames
    engine.close()


def test_a_disk_that_takes_no_more_costs_the_cache_and_not_the_answer(tmp_path: Path) -> None:
    """Sealing stops for that request and is counted; the next one seals again."""
    pool = small_pool(tmp_path)
    engine = build(pool=pool)
    prompt = prompt_of(4 * BLOCK)
    with no_file_may_be_written():
        answer = drive(engine, greedy("one", prompt, 2 * BLOCK))["one"]
    assert answer.tokens == reference(prompt, 2 * BLOCK)
    assert engine.status.counters.seal_errors == 1
    assert pool.stats().write_errors == 1
    assert pool.stats().cached == 0
    assert drive(engine, greedy("two", prompt, 3))["two"].tokens == reference(prompt, 3)
    again = drive(engine, greedy("three", prompt, 3))["three"]
    assert cached_tokens(again) == len(prompt) - 1
    assert engine.status.counters.seal_errors == 1
    engine.close()


def test_a_disk_that_takes_no_more_does_not_stop_a_close(tmp_path: Path) -> None:
    """Short blocks that cannot be written are lost with the process, whole ones are not."""
    engine = build(pool=small_pool(tmp_path))
    prompt = prompt_of(3 * BLOCK + 2)
    drive(engine, greedy("one", prompt, 1))
    with no_file_may_be_written():
        engine.close()
    engine = build(TinyLoaded(), small_pool(tmp_path))
    again = drive(engine, greedy("two", prompt, 3))["two"]
    assert cached_tokens(again) == 3 * BLOCK
    assert again.tokens == reference(prompt, 3)
    engine.close()
