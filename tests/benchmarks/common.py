"""Shapes, rows and pools that the benchmarks share.

asv takes the benchmarks from the working tree and the code under test from a commit: so no package
of the project is imported before a benchmark runs, and only what old commits have, too. asv calls
`setup` before each sample; what is expensive is therefore cached, for the life of the process that
asv starts for each benchmark and parameter. Files lie in the working directory, which asv removes.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

BLOCK_TOKENS = 32
GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """Layers, kv heads and head dim of a model."""

    layers: int
    kv_heads: int
    head_dim: int

    def dense_bytes(self, tokens: int) -> int:
        """K and V in float32, as the slab holds them."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 4 * tokens


SMOL = Shape(30, 3, 64)  # SmolLM2-135M
LLAMA = Shape(32, 8, 128)  # Llama-3.1-8B
# As many layers as SmolLM2, so that records are as long, in the smallest frames there are.
TINY = Shape(30, 1, 1)


@dataclass(frozen=True)
class Row:
    """K and V of one row: `[1, H, capacity, D]` float32 a layer and side."""

    keys: tuple[npt.NDArray[np.float32], ...]
    values: tuple[npt.NDArray[np.float32], ...]


@functools.cache
def row_of(shape: Shape, tokens: int) -> Row:
    """A filled row. Raises: NotImplementedError, which skips the benchmark, if memory is short."""
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 1 << 20
    free = pages * os.sysconf("SC_PAGE_SIZE")
    if 2 * shape.dense_bytes(tokens) > free:
        raise NotImplementedError
    size = (1, shape.kv_heads, tokens, shape.head_dim)
    sample = np.random.default_rng(1).standard_normal(size, dtype=np.float32)
    return Row(
        tuple(sample + np.float32(layer) for layer in range(shape.layers)),
        tuple(sample - np.float32(layer) for layer in range(shape.layers)),
    )


@functools.cache
def token_ids(count: int, seed: int = 0) -> npt.NDArray[np.uint32]:
    """Ids that no other seed has."""
    return np.random.default_rng(seed).integers(0, 49152, count, dtype=np.uint32)


def open_pool(name: str, shape: Shape, codec: Any, frames: int) -> Any:
    """The pool of that name, made for about that many frames if it is not there."""
    from dovecote_cache import Geometry, LayerShape, Pool

    layer = LayerShape(shape.kv_heads, shape.head_dim, shape.head_dim)
    geometry = Geometry((layer,) * shape.layers, "float32", BLOCK_TOKENS)
    frame_bytes = -(-geometry.payload_bytes(codec) // 4096) * 4096
    record_bytes = -(-(64 + 4 * (BLOCK_TOKENS + shape.layers)) // 64) * 64
    return Pool.open(
        Path.cwd() / name,
        geometry=geometry,
        codec=codec,
        fingerprint=bytes(32),
        size_bytes=8192 + frames * (frame_bytes + record_bytes),
    )


def seal(pool: Any, row: Row, tokens: npt.NDArray[np.uint32]) -> None:
    """Seal all of `tokens` as a chain of its own, the short rest included."""
    from dovecote_cache import RowPlanes

    with pool.lease(len(tokens)) as lease, RowPlanes(row.keys, row.values, 0) as planes:
        assert lease.seal_short(tokens, planes) == len(tokens)


def restore(pool: Any, row: Row, tokens: npt.NDArray[np.uint32]) -> None:
    """Match `tokens` and decode all of them into the row."""
    from dovecote_cache import RowPlanes

    with pool.lease(0) as lease:
        assert lease.match(tokens) == len(tokens)
        with RowPlanes(row.keys, row.values, 0) as planes:
            assert lease.decode(planes, 0, -(-len(tokens) // BLOCK_TOKENS)) == len(tokens)


def take_free_memory(nbytes: int) -> None:
    """Have so much free memory be the machine's own: a virtual one borrows it at the first touch.

    The host's part of finding a page is many times the kernel's, and none of a pool's business.
    """
    path = Path.cwd() / "free-memory"
    piece = bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(-(-nbytes // len(piece))):
            file.write(piece)
    path.unlink()


def write_back_and_forget(path: Path) -> None:
    """Leave nothing of the file in the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def memcpy_times(work: Callable[[], object], nbytes: int, rounds: int = 9) -> float:
    """How many times as long as a plain copy of `nbytes` the work takes: 1.67 is 0.6 of memcpy.

    The two alternate, and the median of the ratios counts: what disturbs both does not show. Times
    are this thread's own on the processor: what another program takes of it does not show either,
    and nor would a wait for the disk. (A ratio of times, since asv takes more for worse.)
    """
    source, target = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    work()
    ratios = []
    for _ in range(rounds):
        copying = thread_seconds(lambda: np.copyto(target, source))
        ratios.append(thread_seconds(work) / copying)
    return statistics.median(ratios)


def thread_seconds(work: Callable[[], object]) -> float:
    """Processor time that this thread spends on `work`."""
    started = time.thread_time()
    work()
    return time.thread_time() - started
