"""Shapes and memory that the benchmarks share. Imports no package of the project: the code under
test comes from the commit that asv has installed.
"""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """Layers, kv heads and head dim of a model."""

    layers: int
    kv_heads: int
    head_dim: int


SHAPES = {"SmolLM2-135M": Shape(30, 3, 64), "Llama-3.1-8B": Shape(32, 8, 128)}


class RowOfSlab:
    """The K and V of one row: `[1, H, capacity, D]` float32 a layer and side, filled."""

    def __init__(self, shape: Shape, capacity: int) -> None:
        size = (1, shape.kv_heads, capacity, shape.head_dim)
        rng = np.random.default_rng(1)
        sample = rng.standard_normal(size, dtype=np.float32)
        self.keys = [sample + np.float32(layer) for layer in range(shape.layers)]
        self.values = [sample - np.float32(layer) for layer in range(shape.layers)]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (*self.keys, *self.values))


class PoolOnDisk:
    """A pool in a temporary directory, removed by `close`."""

    def __init__(self, shape: Shape, codec: Any, size_bytes: int) -> None:
        from dovecote_cache import Geometry, LayerShape, Pool

        layer = LayerShape(shape.kv_heads, shape.head_dim, shape.head_dim)
        geometry = Geometry((layer,) * shape.layers, "float32")
        self._directory = tempfile.TemporaryDirectory()
        self.pool = Pool.open(
            Path(self._directory.name) / "bench.pool",
            geometry=geometry,
            codec=codec,
            fingerprint=bytes(32),
            size_bytes=size_bytes,
        )

    def close(self) -> None:
        self.pool.close()
        self._directory.cleanup()


def token_ids(count: int, seed: int = 0) -> npt.NDArray[np.uint32]:
    """Ids that no other seed has."""
    return np.random.default_rng(seed).integers(0, 49152, count, dtype=np.uint32)


def copy_bandwidth(nbytes: int) -> float:
    """Bytes a second that a plain copy of that much memory reaches, best of five."""
    import time

    source = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
    source[:] = 1
    target = np.empty_like(source)
    target[:] = 0
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return nbytes / best
