"""Coming back to a conversation: saving and loading it, and the time to the next token.

The conversations are cached with K and V that are made up, except where a benchmark is about
computing them: restoring does not look at the numbers.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from pathlib import Path
from typing import Any

from . import engines
from .common import BLOCK_TOKENS, Row, open_pool, restore, row_of, seal, token_ids
from .engines import (
    engine_of,
    fill_pool,
    first_token_seconds,
    pool_of,
    request_of,
    skipped_where_absent,
    words,
)

LENGTHS = (2048, 4096, 8192)
HISTORY = 992
NEW = 32
ROUNDS = 5
SEEDS = itertools.count(1000)
KINDS = ("cold", "hot", "restarted", "forked")


class SaveAndLoad:
    """A whole conversation into the pool's file and back, as q8; SmolLM2-135M's shape."""

    params = LENGTHS
    param_names = ("tokens",)
    number = 1
    repeat = (3, 7, 3.0)

    def setup(self, tokens: int) -> None:
        self.pool, self.row = saved(tokens)
        self.new = token_ids(tokens, next(SEEDS))

    def time_load(self, tokens: int) -> None:
        """Match, read, verify and decode."""
        restore(self.pool, self.row, token_ids(tokens))

    def time_save(self, _tokens: int) -> None:
        """Encode and write, in place of what the pool held."""
        seal(self.pool, self.row, self.new)


@functools.cache
def saved(tokens: int) -> tuple[Any, Row]:
    """A pool that is full with one chain of so many tokens, and the row that it came from."""
    shape = engines.SMOL_MODEL.kv
    row = row_of(shape, tokens)
    pool = open_pool(f"{tokens}.pool", shape, "q8", -(-tokens // BLOCK_TOKENS))
    seal(pool, row, token_ids(tokens))
    return pool, row


class Restore:
    """A request whose prompt is cached but for 32 tokens: what the engine's restore takes of it."""

    params = LENGTHS
    param_names = ("tokens",)
    unit = "ms"
    timeout = 300

    def setup(self, tokens: int) -> None:
        model = engines.SMOL_MODEL
        self.history = words(model, tokens - 2 * NEW, 1)
        self.pool = pool_of(model, tokens // BLOCK_TOKENS + 32)
        fill_pool(self.pool, model, self.history)
        self.engine = engine_of(model, self.pool)

    def track_milliseconds(self, _tokens: int) -> float:
        """As `Server-Timing` tells it: every slice between match and the first prefill."""
        return 1e3 * statistics.median(self.restore_seconds() for _ in range(3))

    def restore_seconds(self) -> float:
        prompt = (*self.history, *words(engines.SMOL_MODEL, NEW, next(SEEDS)))
        self.engine.submit(request_of(prompt, 1))
        found = 0.0
        while self.engine.wait(0):
            for event in self.engine.step():
                if type(event).__name__ == "Started":
                    assert event.cached_tokens == len(self.history)
                    found = event.timing.restore_s
        return found


class Resumed:
    """One conversation of 992 tokens, for which an engine can be had anew as after a restart."""

    def __init__(self) -> None:
        self.model = engines.SMOL_MODEL
        self.history = words(self.model, HISTORY, 1)
        self.book: Any = None
        self.engine = self.open()
        fill_pool(self.pool, self.model, self.history)
        self.seconds("hot")

    def open(self) -> Any:
        with skipped_where_absent():
            from dovecote_cache import AgentBook

            self.book = AgentBook.open(Path.cwd() / "resume.db")
        frames = 8 * (HISTORY + 2 * NEW) // BLOCK_TOKENS
        self.pool = pool_of(self.model, frames, "resume.pool")
        return engine_of(self.model, self.pool, self.book)

    def seconds(self, kind: str) -> float:
        """The time to the first token of 32 new ones; unless it is cold, the rest is cached."""
        new, agent = words(self.model, NEW, next(SEEDS)), None
        history = self.history
        if kind == "cold":
            history = words(self.model, HISTORY, next(SEEDS))
        if kind == "restarted":
            self.engine.close()
            self.engine = self.open()
        if kind == "forked":
            agent = self.fork()
        return first_token_seconds(self.engine, request_of((*history, *new), 1, agent))

    def fork(self) -> str:
        """The name of a new agent over the chain of one that has the history."""
        number = next(SEEDS)
        prompt = (*self.history, *words(self.model, 1, number))
        first_token_seconds(self.engine, request_of(prompt, 1, f"agent-{number}"))
        with skipped_where_absent():
            self.engine.agents.fork(f"agent-{number}", f"fork-{number}")
        return f"fork-{number}"


@functools.cache
def resumed() -> Resumed:
    """For the life of the process."""
    return Resumed()


class FirstToken:
    """1,024 tokens of prompt, 32 of them new unless it is cold: until the first token is there.

    `restarted`: the pool was closed and opened again; what starting a process takes is left out.
    The fastest of a few turns counts: what disturbs the machine only adds.
    """

    params = KINDS
    param_names = ("turn",)
    unit = "ms"
    timeout = 600

    def setup(self, kind: str) -> None:
        self.turns = resumed()
        if kind == "forked":
            self.turns.fork()

    def track_milliseconds(self, kind: str) -> float:
        rounds = 1 if kind == "cold" else ROUNDS
        return 1e3 * min(self.turns.seconds(kind) for _ in range(rounds))


class FirstTokenCost:
    """The same, a kind of turn against another in alternation, the fastest of each."""

    timeout = 600

    def setup(self) -> None:
        self.turns = resumed()

    def track_hot_against_cold(self) -> float:
        """What a resumed turn takes of a cold one."""
        return against(self.turns, "hot", "cold", rounds=2)

    track_hot_against_cold.unit = "times cold"  # type: ignore[attr-defined]

    def track_restarted_against_hot(self) -> float:
        """Promised: at most 1.2."""
        return against(self.turns, "restarted", "hot")

    track_restarted_against_hot.unit = "times hot"  # type: ignore[attr-defined]


class ForkCost:
    """The first turn of a fork against a turn of the agent that it came from."""

    timeout = 600

    def setup(self) -> None:
        self.turns = resumed()
        self.turns.fork()

    def track_forked_against_hot(self) -> float:
        """As `FirstTokenCost`."""
        return against(self.turns, "forked", "hot")

    track_forked_against_hot.unit = "times hot"  # type: ignore[attr-defined]


def against(turns: Resumed, kind: str, other: str, rounds: int = ROUNDS) -> float:
    """The time of one kind of turn over that of another."""
    pairs = [(turns.seconds(kind), turns.seconds(other)) for _ in range(rounds)]
    return min(one for one, _ in pairs) / min(two for _, two in pairs)
