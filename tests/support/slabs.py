"""A slab of numpy arrays whose K and V are a pure function of the prefix, as a model's are.

So two rows that hold the same prefix hold the same bytes, and a restored one can be told from the
truth without keeping it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from dovecote_cache import Geometry, LayerShape, Pool, RowPlanes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

BLOCK = 4
GEOMETRY = Geometry((LayerShape(2, 8, 8), LayerShape(1, 4, 12)), "float32", BLOCK)
FINGERPRINT = bytes(range(32))


def ids(*tokens: int) -> npt.NDArray[np.uint32]:
    """Token ids as the pool wants them."""
    return np.array(tokens, np.uint32)


def count_up(count: int, start: int = 100) -> npt.NDArray[np.uint32]:
    """`count` ids that are all different."""
    return np.arange(start, start + count, dtype=np.uint32)


class Slab:
    """L key and L value arrays `[rows, H, capacity, D]`, zero at first."""

    def __init__(
        self,
        rows: int = 2,
        capacity: int = 40,
        geometry: Geometry = GEOMETRY,
        kind: npt.DTypeLike = np.float32,
    ) -> None:
        shapes = geometry.layers
        self.keys = [np.zeros((rows, s.kv_heads, capacity, s.k_dim), kind) for s in shapes]
        self.values = [np.zeros((rows, s.kv_heads, capacity, s.v_dim), kind) for s in shapes]

    def planes(self, row: int = 0) -> RowPlanes:
        """The row, for the pool."""
        return RowPlanes(self.keys, self.values, row)

    def compute(self, tokens: Iterable[int], row: int = 0) -> None:
        """Fill the row as the model would: each position from all tokens up to it."""
        state = 1
        for position, token in enumerate(tokens):
            state = (state * 6364136223846793005 + int(token) * 2654435761 + 1) % (1 << 64)
            for side, buffer in enumerate([*self.keys, *self.values]):
                _, heads, _, dim = buffer.shape
                noise = np.random.default_rng((state, side)).standard_normal((heads, dim))
                buffer[row, :, position] = noise

    def bytes(self, count: int, row: int = 0) -> bytes:
        """The first `count` positions of the row, as they are stored."""
        buffers = [*self.keys, *self.values]
        return b"".join(buffer[row, :, :count].tobytes() for buffer in buffers)


def truth(tokens: Iterable[int], geometry: Geometry = GEOMETRY) -> bytes:
    """What any row that holds these tokens must hold, bit for bit."""
    tokens = [*tokens]
    slab = Slab(rows=1, capacity=max(len(tokens), 1), geometry=geometry)
    slab.compute(tokens)
    return slab.bytes(len(tokens))


@cache
def size_of(frames: int) -> int:
    """The smallest size in bytes of a pool with that many frames."""
    low, high = 1, 1 << 24
    while low < high:
        middle = (low + high) // 2
        if _frames_in(middle) >= frames:
            high = middle
        else:
            low = middle + 1
    return low


def _frames_in(size_bytes: int) -> int:
    try:
        with open_pool(None, size_bytes=size_bytes) as pool:
            return pool.frames
    except ValueError:
        return 0


def open_pool(path: Path | None, frames: int = 8, size_bytes: int = 0) -> Pool:
    """A small pool with the exact codec."""
    return Pool.open(
        path,
        geometry=GEOMETRY,
        codec="exact",
        fingerprint=FINGERPRINT,
        size_bytes=size_bytes or size_of(frames),
    )


def keep(pool: Pool, tokens: npt.NDArray[np.uint32], salt: bytes = b"") -> int:
    """Run a request for the tokens and keep all of them; how many had been cached."""
    slab = Slab(rows=1)
    slab.compute(tokens)
    with pool.lease(len(tokens)) as lease, slab.planes() as planes:
        matched = lease.match(tokens, salt)
        if matched < len(tokens):
            lease.seal_short(tokens[lease.whole_tokens :], planes)
    return matched


def restore(pool: Pool, tokens: npt.NDArray[np.uint32], salt: bytes = b"") -> tuple[int, bytes]:
    """The tokens that the pool still knows of this prompt, and their K and V."""
    slab = Slab(rows=1)
    with pool.lease(0) as lease, slab.planes() as planes:
        matched = lease.match(tokens, salt)
        valid = lease.decode(planes, 0, pool.geometry.blocks(matched))
    return valid, slab.bytes(valid)
