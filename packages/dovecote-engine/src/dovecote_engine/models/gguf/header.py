"""The header of a GGUF file: its metadata and its tensor directory, read within bounds.

MLX's own reader trusts the counts and lengths in the header (a huge one is a segmentation fault),
so every file passes through here first. Does not read tensor data and does not know what the
metadata means.

    OFFSET  SIZE  MEANING (little-endian)
    0       4     "GGUF"
    4       4     version, 2 or 3
    8       8     number of tensors
    16      8     number of metadata entries
    24            entries: key string, u32 type, value; a string is u64 length and UTF-8 bytes,
                  an array is u32 element type, u64 count and the elements
                  tensors: name string, u32 dimensions, u64 each, u32 type, u64 offset of the data
                  padding to `general.alignment` (32), and from there the data

Invariants of a header that `read_header` returns:
- G1 Every string, array and tensor lies inside the file.
- G2 Every tensor has 1 to 4 dimensions, a known type, and whole quantisation blocks in each row.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dovecote_engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TYPE_NUMBERS", "GgufHeader", "GgufTensor", "Value", "read_header"]

Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_MAX_DIMENSIONS: Final = 4
_MAX_ALIGNMENT: Final = 1 << 16
# GGML type -> (name, weights in a block, bytes of a block): what MLX's reader knows, and what is
# rewritten for it (`gguf_readable`).
_TENSOR_TYPES: Final = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2),
}  # fmt: skip
TYPE_NUMBERS: Final = {name: number for number, (name, _, _) in _TENSOR_TYPES.items()}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One entry of the tensor directory. `shape` is in GGUF's order: the row length first.

    `offset` counts from where the data begins.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    size_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about itself, and where in it directory and data begin."""

    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]
    alignment: int
    directory_at: int
    data_at: int


def read_header(path: Path) -> GgufHeader:
    """The metadata and tensor directory of `path`.

    Raises: ModelError if the file is not GGUF or breaks G1 or G2.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(_Cursor(data))
    except (OSError, ValueError) as error:
        message = f"{path} is not a GGUF file that can be read: {error}"
        raise ModelError(message) from error


class _Cursor:
    """A position in the file that cannot leave it. Raises ValueError instead."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > self._size - self.at:
            message = f"{count} bytes at offset {self.at} end beyond the file"
            raise ValueError(message)
        start, self.at = self.at, self.at + count
        return self._data[start : self.at]

    def integer(self, code: str) -> int:
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return int(value)

    def string(self) -> str:
        return self.take(self.integer("Q")).decode("utf-8")

    def count(self, least_bytes: int) -> int:
        """A u64 count of things of at least `least_bytes` each: more than fit is an error."""
        count = self.integer("Q")
        if count > (self._size - self.at) // least_bytes:
            message = f"a count of {count} at offset {self.at} is more than the file can hold"
            raise ValueError(message)
        return count

    def remaining_after(self, offset: int) -> int:
        return self._size - offset


def _parse(cursor: _Cursor) -> GgufHeader:
    if cursor.take(len(_MAGIC)) != _MAGIC:
        message = "the magic is not 'GGUF'"
        raise ValueError(message)
    if (version := cursor.integer("I")) not in _VERSIONS:
        message = f"version {version} is not one of {_VERSIONS}"
        raise ValueError(message)
    tensors = cursor.count(least_bytes=32)
    metadata = _metadata(cursor, cursor.count(least_bytes=13))
    alignment, directory_at = _alignment(metadata), cursor.at
    directory = tuple(_tensor(cursor) for _ in range(tensors))
    data_at = -(-cursor.at // alignment) * alignment
    _check_extents(directory, cursor.remaining_after(data_at), alignment)
    return GgufHeader(metadata, directory, alignment, directory_at, data_at)


def _metadata(cursor: _Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.string()
        metadata[key] = _value(cursor, cursor.integer("I"))
    return metadata


def _value(cursor: _Cursor, kind: int) -> Value:
    if kind == _STRING:
        return cursor.string()
    if kind == _ARRAY:
        return _array(cursor)
    if kind in _SCALARS:
        return _scalars(cursor, kind, 1)[0]
    message = f"metadata type {kind} at offset {cursor.at} is unknown"
    raise ValueError(message)


def _array(cursor: _Cursor) -> list[int] | list[float] | list[bool] | list[str]:
    kind = cursor.integer("I")
    if kind == _STRING:
        return [cursor.string() for _ in range(cursor.count(least_bytes=8))]
    if kind in _SCALARS:
        return _scalars(cursor, kind, cursor.count(struct.calcsize("<" + _SCALARS[kind])))
    message = f"an array of metadata type {kind} at offset {cursor.at} is not supported"
    raise ValueError(message)


def _scalars(cursor: _Cursor, kind: int, count: int) -> list[int] | list[float] | list[bool]:
    code = f"<{count}{_SCALARS[kind]}"
    return list(struct.unpack(code, cursor.take(struct.calcsize(code))))


def _tensor(cursor: _Cursor) -> GgufTensor:
    name = cursor.string()
    dimensions = cursor.integer("I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        message = f"tensor {name!r} has {dimensions} dimensions"
        raise ValueError(message)
    shape = tuple(cursor.integer("Q") for _ in range(dimensions))
    kind = cursor.integer("I")
    if kind not in _TENSOR_TYPES:
        message = f"tensor {name!r} has the unsupported type {kind}"
        raise ValueError(message)
    type_name, block_weights, block_bytes = _TENSOR_TYPES[kind]
    if 0 in shape or shape[0] % block_weights:
        message = f"tensor {name!r} of type {type_name} has the shape {shape}"
        raise ValueError(message)
    size_bytes = math.prod(shape) // block_weights * block_bytes
    return GgufTensor(name, shape, type_name, size_bytes, cursor.integer("Q"))


def _alignment(metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= _MAX_ALIGNMENT or alignment % 8:
        message = f"the alignment {alignment!r} is not a multiple of 8"
        raise ValueError(message)
    return alignment


def _check_extents(directory: tuple[GgufTensor, ...], data_bytes: int, alignment: int) -> None:
    for tensor in directory:
        if tensor.offset % alignment or tensor.size_bytes > data_bytes - tensor.offset:
            message = f"tensor {tensor.name!r} ends beyond the file"
            raise ValueError(message)
