"""What agents take: memory while they run, frames while they rest, the disk while they talk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import engines
from .common import BLOCK_TOKENS, row_of, seal, token_ids
from .engines import engine_of, fill_pool, pool_of, request_of, words

CODECS = ("exact", "f16", "q8", "k8v4", "q4")
AGENTS = (1, 5, 10)
HISTORY = 512
PAGE = 4096


class Agents:
    """Agents with 512 tokens of their own each, all of them running; SmolLM2-135M's shape."""

    params = AGENTS
    param_names = ("agents",)
    unit = "bytes"
    timeout = 300

    def setup(self, agents: int) -> None:
        model = engines.SMOL_MODEL
        engines.loaded(model)
        row_of(model.kv, HISTORY)
        self.pool = pool_of(model, agents * (HISTORY // BLOCK_TOKENS + 16))
        for seed in range(agents):
            fill_pool(self.pool, model, words(model, HISTORY, seed))
        self.resident = resident_bytes()
        self.engine = engine_of(model, self.pool, max_rows=max(AGENTS))
        for seed in range(agents):
            self.engine.submit(request_of(words(model, HISTORY + 1, seed), 128, f"agent-{seed}"))
        while self.engine.status.running < agents:
            self.engine.step()
        self.engine.step()

    def track_slab(self, _agents: int) -> float:
        """The K and V of the running rows, as the engine counts them."""
        return float(self.engine.status.slab_bytes)

    def track_resident(self, _agents: int) -> float:
        """By how much an engine with these agents made the process grow; the weights were there."""
        return float(resident_bytes() - self.resident)

    def track_pool(self, _agents: int) -> float:
        """The frames that hold the agents' blocks."""
        return float(used_bytes(self.pool))


def resident_bytes() -> int:
    """Memory of this process. Raises: NotImplementedError where it cannot be told."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        raise NotImplementedError
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def used_bytes(pool: Any) -> int:
    """Frames that are not free, in bytes."""
    stats = pool.stats()
    return int((stats.frames - stats.free) * stats.frame_bytes)


class Padding:
    """Of the bytes that a conversation takes in the pool, the part that holds no token's K and V:
    the rest of its short block, the token ids, checksums, and what fills up the last page.
    """

    params = (100, 500, 2000)
    param_names = ("tokens",)
    unit = "of the bytes"

    def setup(self, tokens: int) -> None:
        shape = engines.SMOL_MODEL.kv
        self.pool = pool_of(engines.SMOL_MODEL, -(-tokens // BLOCK_TOKENS) + 1)
        seal(self.pool, row_of(shape, tokens), token_ids(tokens))

    def track_fraction(self, tokens: int) -> float:
        payload = int(engines.geometry_of(engines.SMOL_MODEL.kv).payload_bytes("q8"))
        return 1 - tokens * payload / BLOCK_TOKENS / used_bytes(self.pool)


class CacheAndModel:
    """An agent's conversation of 2,048 tokens in the pool, against the model's weights."""

    params = CODECS
    param_names = ("codec",)
    TOKENS = 2048

    def setup(self, codec: str) -> None:
        model = engines.SMOL_MODEL
        self.weights = engines.loaded(model).weight_bytes
        self.pool = pool_of(model, self.TOKENS // BLOCK_TOKENS + 1, codec=codec)
        fill_pool(self.pool, model, words(model, self.TOKENS, 1))

    def track_cache_against_weights(self, _codec: str) -> float:
        return used_bytes(self.pool) / int(self.weights)

    track_cache_against_weights.unit = "times the weights"  # type: ignore[attr-defined]

    def track_bytes_a_token(self, _codec: str) -> float:
        """A frame over the tokens of its block."""
        return used_bytes(self.pool) / self.TOKENS

    track_bytes_a_token.unit = "bytes"  # type: ignore[attr-defined]


class Theory:
    """The bytes that there are against those that there should be. 1 is exact; promised: +-1 %."""

    params = CODECS
    param_names = ("codec",)
    TOKENS = 2048
    NAME = "theory.pool"

    def setup(self, codec: str) -> None:
        model = engines.SMOL_MODEL
        self.pool = pool_of(model, self.TOKENS // BLOCK_TOKENS, self.NAME, codec)
        fill_pool(self.pool, model, words(model, self.TOKENS, 1))

    def teardown(self, _codec: str) -> None:
        self.pool.close()
        (Path.cwd() / self.NAME).unlink()

    def track_frames_against_theory(self, codec: str) -> float:
        """Used frames against codes and scales of that many tokens, worked out by hand.

        A frame fills whole pages; what that takes is `Padding`'s matter.
        """
        block = -(-BLOCK_TOKENS * bytes_a_token(codec) // PAGE) * PAGE
        return used_bytes(self.pool) / (self.TOKENS // BLOCK_TOKENS * block)

    track_frames_against_theory.unit = "times theory"  # type: ignore[attr-defined]

    def track_disk_against_count(self, _codec: str) -> float:
        """What the file takes on the disk against what the pool says that it has."""
        return disk_bytes(Path.cwd() / self.NAME) / float(self.pool.stats().file_bytes)

    track_disk_against_count.unit = "times the pool's count"  # type: ignore[attr-defined]


def disk_bytes(path: Path) -> int:
    """What the file takes on the disk."""
    return path.stat().st_blocks * 512


def bytes_a_token(codec: str) -> float:
    """K and V of one token: numbers of so many bits, and 4 bytes a group of 64 where they are few.

    An 8-bit group has a float32 scale; a 4-bit group a scale and an offset in float16.
    """
    bits = {"exact": (32, 32), "f16": (16, 16), "q8": (8, 8), "k8v4": (8, 4), "q4": (4, 4)}[codec]
    shape = engines.SMOL_MODEL.kv
    numbers = shape.layers * shape.kv_heads * shape.head_dim
    return sum(numbers * (width / 8 + (4 / 64 if width <= 8 else 0)) for width in bits)


class Turn:
    """A turn of 64 new tokens on top of 512, sixteen times over, on a pool in a file."""

    unit = "times the new tokens' bytes"
    TURNS, NEW, ANSWER = 16, 48, 16
    timeout = 300

    def setup(self) -> None:
        model = engines.SMALL_MODEL
        self.pool = pool_of(model, 256, "turn.pool")
        self.prompt = words(model, HISTORY, 1)
        fill_pool(self.pool, model, self.prompt)
        self.engine = engine_of(model, self.pool)

    def track_bytes_written(self) -> float:
        """Everything that is written against the frames' share of the tokens that are new.

        The short block at each turn's end counts once it goes to the disk.
        """
        before, start = self.pool.stats().bytes_written, len(self.prompt)
        for turn in range(self.TURNS):
            self.talk(turn)
        self.pool.sync()
        stats = self.pool.stats()
        new = (len(self.prompt) - start) * stats.frame_bytes / BLOCK_TOKENS
        return float((stats.bytes_written - before) / new)

    def talk(self, turn: int) -> None:
        """One turn; its answer becomes part of the next one's prompt."""
        prompt = (*self.prompt, *words(engines.SMALL_MODEL, self.NEW, 100 + turn))
        self.engine.submit(request_of(prompt, self.ANSWER, "agent"))
        answer: list[int] = []
        while self.engine.wait(0):
            events = self.engine.step()
            answer += [event.token for event in events if type(event).__name__ == "TokenEvent"]
        self.prompt = (*prompt, *answer)
