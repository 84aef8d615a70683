from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import pytest

from dovecote_engine.models.gguf.header import TYPE_NUMBERS, read_header
from dovecote_engine.models.gguf.readable import readable, rewritten

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"Q5_0": 22, "Q4_K": 144, "Q5_K": 176, "Q2_K": 84, "Q6_K": 210}
SCALES_AT = {"Q5_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 82), "Q6_K": (208,)}


def _blocks(kind: str, count: int) -> bytes:
    """Random blocks whose scales are of a usual size."""
    raw = np.random.default_rng(3).integers(0, 256, (count, SIZES[kind]), np.uint8)
    for number, at in enumerate(SCALES_AT[kind]):
        scale = struct.pack("<e", 0.011 + 0.005 * number)
        raw[:, at : at + 2] = np.frombuffer(scale, np.uint8)
    return raw.tobytes()


def _half_at(block: bytes, at: int) -> float:
    (number,) = struct.unpack_from("<e", block, at)
    return float(number)


def _sixes(block: bytes, number: int) -> tuple[int, int]:
    """Scale and least of the number-th 32 weights: get_scale_min_k4 of ggml-quants.c."""
    q = block[4:16]
    if number < 4:
        return q[number] & 63, q[number + 4] & 63
    scale = (q[number + 4] & 0xF) | ((q[number - 4] >> 6) << 4)
    return scale, (q[number + 4] >> 4) | ((q[number] >> 6) << 4)


def _reference(kind: str, block: bytes) -> list[float]:
    """One block after ggml's definition, a weight at a time."""
    if kind == "Q5_0":
        (fifth,) = struct.unpack_from("<I", block, 2)
        nibbles = [byte & 15 for byte in block[6:]] + [byte >> 4 for byte in block[6:]]
        return [
            _half_at(block, 0) * ((low | (fifth >> n & 1) << 4) - 16)
            for n, low in enumerate(nibbles)
        ]
    weights = []
    quants = block[16:] if kind == "Q4_K" else block[48:]
    for number in range(8):
        scale, least = _sixes(block, number)
        for place in range(32):
            byte = quants[number // 2 * 32 + place]
            quant = byte >> 4 if number % 2 else byte & 15
            if kind == "Q5_K":
                quant |= (block[16 + place] >> number & 1) << 4
            weights.append(_half_at(block, 0) * scale * quant - _half_at(block, 2) * least)
    return weights


def _file(path: Path, kind: str, blocks: bytes, row: int) -> Path:
    """A GGUF file of two tensors of that kind, the second one not where a block would end."""
    tensors = len(blocks) // SIZES[kind] * (32 if kind == "Q5_0" else 256) // row
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 1)
    head += struct.pack("<Q", 1) + b"a" + struct.pack("<IQ", 8, 1) + b"b"
    padded = -(-len(blocks) // 32) * 32
    for offset, name in ((0, b"x.weight"), (padded, b"y.weight")):
        head += struct.pack("<Q", len(name)) + name + struct.pack("<I", 2)
        head += struct.pack("<QQIQ", row, tensors, TYPE_NUMBERS[kind], offset)
    head += bytes(-len(head) % 32)
    path.write_bytes(head + (blocks + bytes(padded - len(blocks))) * 2)
    return path


def _numbers(path: Path) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    tensors: Any = mx.load(str(path))
    if "x.scales" in tensors:
        return [
            np.array(
                mx.dequantize(
                    tensors[f"{name}.weight"],
                    tensors[f"{name}.scales"].astype(mx.float32),
                    tensors[f"{name}.biases"].astype(mx.float32),
                    group_size=32,
                    bits=8,
                )
            )
            for name in "xy"
        ]
    return [np.array(tensors[f"{name}.weight"].astype(mx.float32)) for name in "xy"]


@pytest.mark.parametrize("kind", ("Q5_0", "Q4_K", "Q5_K"))
def test_mlx_reads_the_copy_as_ggml_defines_the_original(tmp_path: Path, kind: str) -> None:
    """Every weight of every kind of block, exactly or to float16."""
    blocks = _blocks(kind, 8 if kind == "Q5_0" else 3)
    row = 64 if kind == "Q5_0" else 256
    path = _file(tmp_path / "file.gguf", kind, blocks, row)
    size = SIZES[kind]
    wanted = [
        weight
        for start in range(0, len(blocks), size)
        for weight in _reference(kind, blocks[start : start + size])
    ]
    with readable(path, read_header(path), tmp_path) as copy:
        assert copy != path
        for found in _numbers(copy):
            tolerance = 0 if kind == "Q5_0" else 1e-3
            np.testing.assert_allclose(found.reshape(-1), wanted, rtol=tolerance, atol=tolerance)
    assert not copy.exists()


@pytest.mark.parametrize("kind", ("Q2_K", "Q6_K"))
def test_a_file_that_mlx_reads_right_is_not_copied(tmp_path: Path, kind: str) -> None:
    """Only what has to be is written anew."""
    path = _file(tmp_path / "file.gguf", kind, _blocks(kind, 2), 256)
    with readable(path, read_header(path), tmp_path) as same:
        assert same == path
    assert path.exists()


def test_mlx_still_reads_q4_k_wrong(tmp_path: Path) -> None:
    """The copy is needed as long as this holds."""
    blocks = _blocks("Q4_K", 1)
    found = _numbers(_file(tmp_path / "file.gguf", "Q4_K", blocks, 256))[0].reshape(8, 32)
    wanted = np.array(_reference("Q4_K", blocks)).reshape(8, 32)
    np.testing.assert_allclose(found[::2], wanted[::2], rtol=1e-3, atol=1e-3)
    assert np.abs(found[1::2] - wanted[1::2]).max() > 0.01


def test_blocks_are_rewritten_one_by_one() -> None:
    """A piece of a tensor is rewritten as it is within the whole."""
    blocks = _blocks("Q5_K", 4)
    kind, whole = rewritten("Q5_K", blocks)
    assert kind == "F16"
    assert whole == b"".join(
        rewritten("Q5_K", blocks[start : start + 176])[1] for start in range(0, len(blocks), 176)
    )
