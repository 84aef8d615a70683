"""Many rows in one step: what a token costs alone and among others, and how rows come and go.

Lower is better throughout, as asv takes it: a token's time among three rows is told against its
time alone, so that 0.59 is 1.7 times the tokens a second. Times alternate within one run, and the
fastest step counts: what disturbs the machine only adds.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import engines
from .common import BLOCK_TOKENS, row_of, seal
from .engines import decode_step_seconds, engine_of, fill_pool, pool_of, words

CONTEXT = 256
AGENTS = (1, 3, 5, 8, 16)
STEPS = 8
ROUNDS = 3


@functools.cache
def engine_with_prompts() -> tuple[Any, list[tuple[int, ...]]]:
    """An engine for 16 rows, and a cached prompt of 256 tokens with one more for each."""
    model = engines.SMOL_MODEL
    pool = pool_of(model, 16 * (CONTEXT // BLOCK_TOKENS + 8))
    prompts = [words(model, CONTEXT + 1, seed) for seed in range(max(AGENTS))]
    for prompt in prompts:
        fill_pool(pool, model, prompt[:CONTEXT])
    engine = engine_of(model, pool, max_rows=max(AGENTS))
    decode_step_seconds(engine, prompts[:1], 1)
    return engine, prompts


class Step:
    """Decoding with 256 tokens of context a row: the model's shape is SmolLM2-135M's."""

    params = AGENTS
    param_names = ("agents",)
    unit = "ms"
    timeout = 300

    def setup(self, _agents: int) -> None:
        self.engine, self.prompts = engine_with_prompts()

    def track_milliseconds_a_token(self, agents: int) -> float:
        """A step's time over its tokens: 10 ms are 100 tokens a second of all together."""
        times = decode_step_seconds(self.engine, self.prompts[:agents], 2 * STEPS)
        return 1e3 * min(times) / agents


class Batching:
    """What agents gain by running together."""

    timeout = 300

    def setup(self) -> None:
        self.engine, self.prompts = engine_with_prompts()

    def track_one_agent(self) -> float:
        """A token's time when nobody else runs."""
        return 1e3 * min(decode_step_seconds(self.engine, self.prompts[:1], 2 * STEPS))

    track_one_agent.unit = "ms"  # type: ignore[attr-defined]

    def track_three_agents(self) -> float:
        """Promised: at most 1 / 1.7 = 0.588."""
        return self.against_one(3)

    track_three_agents.unit = "times one agent's token"  # type: ignore[attr-defined]

    def track_five_agents(self) -> float:
        """Promised: at most 1 / 2.7 = 0.370."""
        return self.against_one(5)

    track_five_agents.unit = "times one agent's token"  # type: ignore[attr-defined]

    def against_one(self, agents: int) -> float:
        one, many = [], []
        for _ in range(ROUNDS):
            one += decode_step_seconds(self.engine, self.prompts[:1], STEPS)
            many += decode_step_seconds(self.engine, self.prompts[:agents], STEPS)
        return min(many) / agents / min(one)


class Slab:
    """A row of 1,024 tokens joins four others, and one leaves from among them."""

    TOKENS = 1024
    number = 1
    repeat = (5, 20, 2.0)

    def setup(self) -> None:
        self.slab, self.pool, self.tokens = slab_and_chain(self.TOKENS)
        self.time_join()

    def time_join(self) -> None:
        """Match and decode into the row; the other rows are not touched."""
        with self.pool.lease(0) as lease:
            assert lease.match(self.tokens) == self.TOKENS
            with self.slab.row_planes(4) as planes:
                lease.decode(planes, 0, self.TOKENS // BLOCK_TOKENS)

    def time_leave(self) -> None:
        """The last row moves into the hole."""
        self.slab.move_row(4, 1, self.TOKENS)
        self.slab.settle()


@functools.cache
def slab_and_chain(tokens: int) -> tuple[Any, Any, Any]:
    """A slab for five rows, and a pool that holds a chain for one of them."""
    shape = engines.SMOL_MODEL.kv
    engines.loaded(engines.SMOL_MODEL)
    with engines.skipped_where_absent():
        slabs = engines.moved("dovecote_engine.rows.slab", "dovecote_engine.slab")
        slab = slabs.Slab(engines.geometry_of(shape), 4 << 30)
        slab.reserve(5, tokens + 256)
    pool = pool_of(engines.SMOL_MODEL, tokens // BLOCK_TOKENS + 1)
    chain = np.asarray(words(engines.SMOL_MODEL, tokens, 1), np.uint32)
    seal(pool, row_of(shape, tokens), chain)
    return slab, pool, chain
