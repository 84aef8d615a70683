"""Moving K and V through `dovecote_cache`: sealing and restoring a row."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

from .common import (
    BLOCK_TOKENS,
    LLAMA,
    SMOL,
    Row,
    Shape,
    memcpy_times,
    open_pool,
    restore,
    row_of,
    seal,
    take_free_memory,
    token_ids,
    write_back_and_forget,
)

CODECS = ["exact", "f16", "q8", "k8v4", "q4"]
TOKENS = 1890  # of a resumed conversation with SmolLM2; the last block is a short one
FRAMES = -(-TOKENS // BLOCK_TOKENS)


@functools.cache
def pool_with_chain(shape: Shape, codec: str, tokens: int) -> tuple[Any, Row]:
    """A pool that is full with one chain, and the row that it came from."""
    row = row_of(shape, tokens)
    pool = open_pool(f"{codec}.pool", shape, codec, -(-tokens // BLOCK_TOKENS))
    seal(pool, row, token_ids(tokens))
    return pool, row


class Restore:
    """SmolLM2: match, read, verify and decode a chain into a float32 row."""

    params = (CODECS, ["hot", "cold"])
    param_names = ("codec", "page cache")
    number = 1
    repeat = (5, 20, 2.0)

    def setup(self, codec: str, cache: str) -> None:
        self.pool, self.row = pool_with_chain(SMOL, codec, TOKENS)
        if cache == "cold":
            write_back_and_forget(Path.cwd() / f"{codec}.pool")
        else:
            self.time_restore(codec, cache)

    def time_restore(self, _codec: str, _cache: str) -> None:
        restore(self.pool, self.row, token_ids(TOKENS))


class RestoreCost:
    """SmolLM2: a hot restore against a copy of its float32 bytes, in one run."""

    params = CODECS
    param_names = ("codec",)
    unit = "times memcpy"

    def setup(self, codec: str) -> None:
        self.pool, self.row = pool_with_chain(SMOL, codec, TOKENS)

    def track_memcpy_times(self, _codec: str) -> float:
        def work() -> None:
            restore(self.pool, self.row, token_ids(TOKENS))

        return memcpy_times(work, SMOL.dense_bytes(TOKENS))


class RestoreThreads:
    """SmolLM2, q8, hot: one restore by one thread and by two."""

    params = (1, 2)
    param_names = ("threads",)
    number = 1
    repeat = (5, 20, 2.0)

    def setup(self, threads: int) -> None:
        self.row = row_of(SMOL, TOKENS)
        self.pool = open_pool("threads.pool", SMOL, "q8", FRAMES)
        if not hasattr(self.pool, "use_threads"):
            raise NotImplementedError("restores have one thread at this commit")
        self.pool.use_threads(threads)
        seal(self.pool, self.row, token_ids(TOKENS))

    def teardown(self, _threads: int) -> None:
        self.pool.close()
        (Path.cwd() / "threads.pool").unlink()

    def time_restore(self, _threads: int) -> None:
        restore(self.pool, self.row, token_ids(TOKENS))


class RestoreLlama:
    """Llama-3.1-8B, q4: 8,192 tokens, hot. 2 GiB of float32, so it needs 6 GiB of memory."""

    TOKENS = 8192
    number = 1
    repeat = (3, 7, 5.0)
    timeout = 300

    def setup(self) -> None:
        self.pool, self.row = pool_with_chain(LLAMA, "q4", self.TOKENS)

    def time_restore(self) -> None:
        restore(self.pool, self.row, token_ids(self.TOKENS))


SEEDS = itertools.count(1)


class Seal:
    """SmolLM2: encode and write a chain into a pool that has no frame for it to share.

    `used`: into the frames of evicted chains, as a full pool does. `new`: into frames never written
    before, for which the operating system has to find its pages first.
    """

    params = (CODECS, ["used", "new"])
    param_names = ("codec", "frames")
    number = 1
    repeat = (5, 20, 2.0)

    def setup(self, codec: str, frames: str) -> None:
        self.tokens = token_ids(TOKENS, next(SEEDS))
        if frames == "used":
            self.pool, self.row = pool_with_chain(SMOL, codec, TOKENS)
            seal(self.pool, self.row, token_ids(TOKENS, next(SEEDS)))
        else:
            self.row = row_of(SMOL, TOKENS)
            self.pool = open_pool("new.pool", SMOL, codec, FRAMES)

    def teardown(self, _codec: str, frames: str) -> None:
        if frames == "new":
            self.pool.close()
            (Path.cwd() / "new.pool").unlink()

    def time_seal(self, _codec: str, _frames: str) -> None:
        seal(self.pool, self.row, self.tokens)


class SealCost:
    """SmolLM2: sealing into used frames against a copy of the float32 bytes, in one run."""

    params = CODECS
    param_names = ("codec",)
    unit = "times memcpy"

    def setup(self, codec: str) -> None:
        self.pool, self.row = pool_with_chain(SMOL, codec, TOKENS)
        self.chains = [token_ids(TOKENS, next(SEEDS)) for _ in range(16)]

    def track_memcpy_times(self, _codec: str) -> float:
        def work() -> None:
            seal(self.pool, self.row, self.chains.pop())

        return memcpy_times(work, SMOL.dense_bytes(TOKENS))


class SealNewCost:
    """SmolLM2: the same into frames that were never written, as while a pool fills up."""

    unit = "times memcpy"
    CHAINS = 10

    def setup(self) -> None:
        self.row = row_of(SMOL, TOKENS)
        take_free_memory(self.CHAINS * SMOL.dense_bytes(TOKENS) // 3)  # q8 takes less
        self.pool = open_pool("filling.pool", SMOL, "q8", self.CHAINS * FRAMES)
        self.chains = [token_ids(TOKENS, next(SEEDS)) for _ in range(self.CHAINS)]

    def teardown(self) -> None:
        self.pool.close()
        (Path.cwd() / "filling.pool").unlink()

    def track_memcpy_times(self) -> float:
        def work() -> None:
            seal(self.pool, self.row, self.chains.pop())

        return memcpy_times(work, SMOL.dense_bytes(TOKENS), rounds=self.CHAINS - 1)
