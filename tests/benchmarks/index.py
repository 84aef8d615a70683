"""What the pool knows without reading a block: opening, hashing, matching, reserving."""

from __future__ import annotations

import ctypes
import functools
import time
from pathlib import Path
from typing import Any

from .common import BLOCK_TOKENS, TINY, open_pool, row_of, seal, token_ids, write_back_and_forget
from .engines import seconds_of, skipped_where_absent

PROMPT = 32768
BLOCKS = PROMPT // BLOCK_TOKENS
FRAMES = 100_000
NAME = "index.pool"


@functools.cache
def full_pool() -> Any:
    """100,000 frames, full of chains of 32,768 tokens; about 500 MB in the working directory."""
    pool = open_pool(NAME, TINY, "f16", FRAMES)
    row = row_of(TINY, PROMPT)
    for seed in range(pool.frames // BLOCKS):
        seal(pool, row, token_ids(PROMPT, seed))
    return pool


class Open:
    """Opening 100,000 frames. `hot`: the table is in the page cache; `cold`: it is on the disk."""

    params = ("hot", "cold")
    param_names = ("page cache",)
    number = 1
    repeat = (5, 20, 2.0)

    def setup(self, cache: str) -> None:
        full_pool().close()
        if cache == "cold":
            write_back_and_forget(Path.cwd() / NAME)

    def time_open(self, _cache: str) -> None:
        self.pool = open_pool(NAME, TINY, "f16", FRAMES)

    def teardown(self, _cache: str) -> None:
        self.pool.close()


class Match:
    """The longest cached prefix of a prompt of 32,768 tokens, among 100,000 frames."""

    number = 1
    repeat = (5, 50, 1.0)

    def setup(self) -> None:
        self.lease = full_pool().lease(0)
        self.tokens = token_ids(PROMPT, seed=7)

    def teardown(self) -> None:
        self.lease.release()

    def time_match(self) -> None:
        self.lease.match(self.tokens)

    def track_nanoseconds_a_token(self) -> float:
        """A token hashed, looked up and compared, best of 50 leases."""
        best = float("inf")
        for _ in range(50):
            with full_pool().lease(0) as lease:
                started = time.perf_counter()
                assert lease.match(self.tokens) == PROMPT
                best = min(best, time.perf_counter() - started)
        return 1e9 * best / PROMPT

    track_nanoseconds_a_token.unit = "ns"  # type: ignore[attr-defined]


class Hash:
    """SipHash-2-4-128 alone, which makes the keys of blocks: over 32,768 token ids at once."""

    unit = "ns"
    ROUNDS = 50

    def setup(self) -> None:
        with skipped_where_absent():  # the name is the core's own: its header has no hash
            from dovecote_native import _core

            self.siphash = ctypes.CDLL(str(_core.__file__)).dc_siphash
        self.siphash.restype = None
        ids = token_ids(PROMPT)
        self.source, self.size = ctypes.c_void_p(ids.ctypes.data), ctypes.c_size_t(ids.nbytes)
        self.secret, self.key = ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)

    def track_nanoseconds_a_token(self) -> float:
        """A part of what a match takes of a token."""
        return 1e9 * min(seconds_of(self.hash_all) for _ in range(self.ROUNDS)) / PROMPT

    def hash_all(self) -> None:
        self.siphash(self.secret, self.source, self.size, self.key)


class Reserve:
    """Leases of 1,024 blocks, taken and given back."""

    unit = "ns"

    def setup(self) -> None:
        self.pool = full_pool()
        self.tokens = token_ids(PROMPT, seed=7)

    def track_reserve_and_release_of_a_block(self) -> float:
        """Promising frames and taking the promise back."""
        return nanoseconds_a_block(lambda: self.pool.lease(PROMPT).release())

    def track_pin_and_unpin_of_a_block(self) -> float:
        """The same, and a match that pins every block in between."""

        def work() -> None:
            with self.pool.lease(0) as lease:
                lease.match(self.tokens)

        return nanoseconds_a_block(work)


def nanoseconds_a_block(work: Any, rounds: int = 50) -> float:
    """Best time of `work` over its 1,024 blocks."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return 1e9 * best / BLOCKS
