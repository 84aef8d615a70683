"""What conversations cost the disk: docs/decisions/0010-short-blocks-in-memory.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_engine import (
    BLOCK,
    FINGERPRINT,
    GEOMETRY,
    TinyLoaded,
    build,
    cached_tokens,
    drive,
    greedy,
    reference,
)

from dovecote_cache import CodecName, Pool
from dovecote_engine.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

TURNS = 100
AGENTS = ("ada", "bob")
QUESTION, ANSWER = 7, 5


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def open_pool(path: Path, codec: CodecName = "exact") -> Pool:
    return Pool.open(
        path, geometry=GEOMETRY, codec=codec, fingerprint=FINGERPRINT, size_bytes=8 << 20
    )


def converse(engine: Engine, turns: int) -> dict[str, list[int]]:
    """Each agent asks and is answered, turn after turn; what each has said and heard."""
    random = np.random.default_rng(1)
    said: dict[str, list[int]] = {agent: [] for agent in AGENTS}
    for _ in range(turns):
        for history in said.values():
            history.extend(int(token) for token in random.integers(0, 100, QUESTION))
        requests = [greedy(agent, history, ANSWER, agent) for agent, history in said.items()]
        answers = drive(engine, *requests)
        for agent, history in said.items():
            history.extend(answers[agent].tokens)
    return said


@pytest.mark.parametrize("codec", ("exact", "q8"))
def test_a_conversation_writes_little_more_than_its_whole_blocks(
    tmp_path: Path, codec: CodecName
) -> None:
    """100 turns write at most 1.1 times the frames of their whole blocks, closing included."""
    pool = open_pool(tmp_path / "a.pool", codec)
    engine = build(TinyLoaded(context_tokens=2048), pool)
    said = converse(engine, TURNS)
    pool.sync()
    stats = pool.stats()
    whole_blocks = sum((len(history) - 1) // BLOCK for history in said.values())
    assert whole_blocks > TURNS
    new_bytes = whole_blocks * stats.frame_bytes
    assert new_bytes < stats.bytes_written <= 1.1 * new_bytes
    assert stats.held_bytes == 0
    engine.close()


def test_a_short_block_lasts_from_turn_to_turn_unwritten(tmp_path: Path) -> None:
    """The next turn finds the history to the token, though its end was never on disk."""
    pool = open_pool(tmp_path / "a.pool")
    engine = build(pool=pool)
    said = converse(engine, 2)
    before = pool.stats()
    assert before.held_bytes == len(AGENTS) * before.frame_bytes
    history = (*said["ada"], 1)
    answer = drive(engine, greedy("next", history, 3, "ada"))["next"]
    assert cached_tokens(answer) == len(said["ada"]) - 1
    assert answer.tokens == reference(history, 3)
    engine.close()


@pytest.mark.parametrize("idle_s", (29.0, 31.0))
def test_an_idle_engine_writes_short_blocks_after_a_while(tmp_path: Path, idle_s: float) -> None:
    """Half a minute after its last step a kill costs nothing any more."""
    clock = Clock()
    pool = open_pool(tmp_path / "a.pool")
    engine = Engine(TinyLoaded(), pool, clock=clock)
    converse(engine, 1)
    assert pool.stats().held_bytes > 0
    clock.now += idle_s
    assert not engine.wait(0)
    is_written = idle_s > 30
    assert (pool.stats().held_bytes == 0) == is_written
    written = pool.stats().bytes_written
    assert not engine.wait(0)
    assert pool.stats().bytes_written == written
    engine.close()


def test_a_busy_engine_writes_what_nobody_went_on_from(tmp_path: Path) -> None:
    """The end of a chain is on disk after two intervals at most, though no moment was idle."""
    clock = Clock()
    pool = open_pool(tmp_path / "a.pool")
    engine = Engine(TinyLoaded(), pool, clock=clock)
    quiet = [*range(BLOCK + 3)]
    drive(engine, greedy("ada", quiet, 3, "ada"))
    talk = [90, 91, 92]
    for _ in range(4):
        clock.now += 20.0
        answer = drive(engine, greedy("bob", talk, 4, "bob"))["bob"]
        talk += answer.tokens
    assert pool.stats().held_bytes == pool.frame_bytes  # of bob, who is still talking
    engine.close()


def test_closing_keeps_short_blocks(tmp_path: Path) -> None:
    """A server that was ended finds every token that its predecessor computed."""
    engine = build(pool=open_pool(tmp_path / "a.pool"))
    said = converse(engine, 1)["ada"]
    engine.close()
    engine = build(pool=open_pool(tmp_path / "a.pool"))
    answer = drive(engine, greedy("next", (*said, 1), 3))["next"]
    assert cached_tokens(answer) == len(said) - 1
    engine.close()
