"""The recurrent state of a row: arrays of one size, whatever the row's length, as bytes and back.

Such a state belongs to one position and cannot be cut back: it is kept and put back as a whole.
Does not know rows, blocks or where bytes are kept. Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlx_lm.models.cache import ArraysCache

__all__ = ["Snapshot", "StateShape", "state_of"]

Arrays = list[Any]
"""Of mx.array or None: some models leave a place empty."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after the first `tokens` tokens of a row."""

    tokens: int
    arrays: Arrays


@dataclass(frozen=True, slots=True)
class StateShape:
    """Shape and element type of each array of a state; None for an empty place."""

    arrays: tuple[tuple[tuple[int, ...], mx.Dtype] | None, ...]

    @classmethod
    def of(cls, arrays: Sequence[Any]) -> StateShape:
        """Those of that state."""
        return cls(tuple(None if each is None else (each.shape, each.dtype) for each in arrays))

    @property
    def layout(self) -> bytes:
        """What tells it from every other shape, wherever the model is."""
        return repr(self.arrays).encode()

    @property
    def size_bytes(self) -> int:
        """Bytes of one state."""
        return sum(_bytes(*each) for each in self.arrays if each is not None)

    def pack(self, arrays: Sequence[Any]) -> list[memoryview]:
        """The state's bytes in pieces: the memory of the arrays, where it has no gaps.

        What is held is neither freed nor updated in place. Another thread may read it and let it
        go. Raises: ValueError if the state is of another shape.
        """
        if StateShape.of(arrays) != self:
            raise ValueError("the state is not of the shape that it had")
        present = [mx.contiguous(each).view(mx.uint8) for each in arrays if each is not None]
        mx.eval(present)
        return [_exporter(each) for each in present]

    def unpack(self, content: bytes) -> Arrays:
        """The arrays whose joined bytes `pack` gave. Raises: ValueError for any other number."""
        if len(content) != self.size_bytes:
            raise ValueError(f"a state has {self.size_bytes} bytes, not {len(content)}")
        arrays: Arrays = []
        start = 0
        for each in self.arrays:
            if each is None:
                arrays.append(None)
                continue
            shape, dtype = each
            size = _bytes(shape, dtype)
            raw = np.frombuffer(content, np.uint8, size, start)
            arrays.append(mx.array(raw).view(dtype).reshape(shape))
            start += size
        return arrays


def state_of(caches: Iterable[ArraysCache]) -> Arrays:
    """The arrays that the caches hold now: later updates do not reach them."""
    return [each if each is None else mx.array(each) for cache in caches for each in cache.cache]


def _exporter(array: Any) -> memoryview:  # noqa: ANN401 - MLX's stubs lack the buffer protocol
    return memoryview(array)


def _bytes(shape: tuple[int, ...], dtype: mx.Dtype) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.size
