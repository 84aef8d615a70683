"""A copy of a GGUF file in which MLX reads every tensor right: some kinds it cannot, or does wrong,
and a file that may not be written to it cannot open at all, though it only reads.

    Q5_0   unknown to MLX 0.32: as Q8_0, which holds the same numbers. Both are a scale times a
           whole number, in blocks of 32, in Q5_0 from -16 to 15.
    Q4_K   MLX 0.32 gives every second 32 weights the scale of those before: dequantised to F16
    Q5_K   unknown to MLX 0.32: dequantised to F16

    BLOCK    BYTES
    Q5_0     scale (float16), 32 fifth bits, 32 low nibbles: 22
    Q8_0     scale (float16), 32 signed bytes: 34
    Q4_K     scale and least (float16), 8 of each in 6 bits (12), 256 nibbles (128): 144
    Q5_K     the same with 256 fifth bits (32) before the nibbles: 176

Does not know what the tensors are for.

Format: https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
"""

from __future__ import annotations

import os
import shutil
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from dovecote_engine.models.gguf.header import TYPE_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt

    from dovecote_engine.models.gguf.header import GgufHeader, GgufTensor

    Raw = npt.NDArray[np.uint8]

__all__ = ["readable", "rewritten"]

# Blocks of a tensor that are in memory at once as float32: 64 MiB.
_PIECE_BLOCKS: Final = 1 << 16


@contextmanager
def readable(path: Path, header: GgufHeader, folder: Path) -> Iterator[Path]:
    """The file itself, or a copy in `folder` that MLX can read, until the block ends.

    Raises: OSError.
    """
    is_right = all(tensor.type_name not in _REWRITES for tensor in header.tensors)
    if is_right and os.access(path, os.W_OK):
        yield path
        return
    copy = folder / "readable.gguf"
    try:
        with path.open("rb") as source, copy.open("wb") as target:
            if is_right:
                shutil.copyfileobj(source, target)
            else:
                _copy(source, header, target)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def rewritten(type_name: str, blocks: bytes) -> tuple[str, bytes]:
    """The kind that whole blocks of another one become, and their bytes."""
    rewrite = _REWRITES[type_name]
    raw = np.frombuffer(blocks, np.uint8).reshape(-1, rewrite.block_bytes)
    return rewrite.type_name, rewrite.convert(raw).tobytes()


@dataclass(frozen=True, slots=True)
class _Rewrite:
    """What blocks of one kind become: `new_bytes` each of the kind `type_name`."""

    type_name: str
    block_bytes: int
    new_bytes: int
    convert: Callable[[Raw], npt.NDArray[np.generic]]


def _q8_0_of_q5_0(raw: Raw) -> Raw:
    fifth = np.unpackbits(raw[:, 2:6], axis=1, bitorder="little")
    numbers = _halves(raw[:, 6:]) | fifth << 4
    return np.concatenate([raw[:, :2], numbers - np.uint8(16)], axis=1)


def _f16_of_q4_k(raw: Raw) -> npt.NDArray[np.float16]:
    nibbles = _halves(raw[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return _scaled(raw, nibbles)


def _f16_of_q5_k(raw: Raw) -> npt.NDArray[np.float16]:
    nibbles = _halves(raw[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    # Bit b of byte n belongs to weight n of the b-th 32.
    bits: Raw = np.unpackbits(raw[:, 16:48, None], axis=2, bitorder="little")
    fifth: Raw = bits.swapaxes(1, 2) << np.uint8(4)
    return _scaled(raw, nibbles | fifth)


def _halves(nibbles: Raw) -> Raw:
    """All low nibbles of the last axis, then all high ones."""
    return np.concatenate([nibbles & 0xF, nibbles >> 4], axis=-1)


def _scaled(raw: Raw, numbers: Raw) -> npt.NDArray[np.float16]:
    """`numbers` [blocks, 8, 32] by the scale and from the least of their 32."""
    of_scales, of_leasts = (
        raw[:, at : at + 2].copy().view("<f2").astype(np.float32) for at in (0, 2)
    )
    low, high, rest = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scales = np.concatenate([low & 63, (rest & 0xF) | (low >> 6) << 4], axis=1)
    leasts = np.concatenate([high & 63, (rest >> 4) | (high >> 6) << 4], axis=1)
    weights: npt.NDArray[np.float32] = (of_scales * scales)[..., None] * numbers - (
        of_leasts * leasts
    )[..., None]
    return weights.astype(np.float16)


_REWRITES: Final[Mapping[str, _Rewrite]] = {
    "Q5_0": _Rewrite("Q8_0", 22, 34, _q8_0_of_q5_0),
    "Q4_K": _Rewrite("F16", 144, 512, _f16_of_q4_k),
    "Q5_K": _Rewrite("F16", 176, 512, _f16_of_q5_k),
}


def _copy(source: BinaryIO, header: GgufHeader, target: BinaryIO) -> None:
    target.write(source.read(header.directory_at))
    offset = 0
    for tensor in header.tensors:
        type_name, size_bytes = _new_form(tensor)
        name = tensor.name.encode()
        target.write(struct.pack("<Q", len(name)) + name)
        target.write(struct.pack("<I", len(tensor.shape)))
        target.write(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        target.write(struct.pack("<IQ", TYPE_NUMBERS[type_name], offset))
        offset += -(-size_bytes // header.alignment) * header.alignment
    _pad(target, header.alignment)
    for tensor in header.tensors:
        source.seek(header.data_at + tensor.offset)
        _copy_data(source, tensor, target)
        _pad(target, header.alignment)


def _copy_data(source: BinaryIO, tensor: GgufTensor, target: BinaryIO) -> None:
    rewrite = _REWRITES.get(tensor.type_name)
    piece = _PIECE_BLOCKS * (rewrite.block_bytes if rewrite else 32)
    for start in range(0, tensor.size_bytes, piece):
        data = source.read(min(piece, tensor.size_bytes - start))
        target.write(rewritten(tensor.type_name, data)[1] if rewrite else data)


def _new_form(tensor: GgufTensor) -> tuple[str, int]:
    rewrite = _REWRITES.get(tensor.type_name)
    if rewrite is None:
        return tensor.type_name, tensor.size_bytes
    return rewrite.type_name, tensor.size_bytes // rewrite.block_bytes * rewrite.new_bytes


def _pad(target: BinaryIO, alignment: int) -> None:
    target.write(bytes(-target.tell() % alignment))
