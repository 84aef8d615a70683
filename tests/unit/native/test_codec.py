"""The codecs through cffi, against a definition of q8 and q4 written in numpy."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from dovecote_native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

ARM = platform.machine() in {"arm64", "aarch64"}
LEVELS = ("portable", "neon") if ARM else ("portable", "avx2", "avx512")
DIMS = (64, 128, 32, 96, 80, 16, 7)
HEADS, TOKENS, CAPACITY, START = 3, 8, 20, 5
FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2


@pytest.fixture(autouse=True, params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has, forced."""
    if lib.dovecote_cpu_override(request.param.encode()) != lib.DOVECOTE_OK:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    lib.dovecote_cpu_override(ffi.NULL)


def group_length(dim: int) -> int:
    """Return the group's length that codec.h promises."""
    return next((length for length in (64, 32) if dim % length == 0), dim)


def padded(codes: Bytes, scales: npt.NDArray[Any]) -> bytes:
    """Return codes, zeros up to a multiple of four, scales."""
    return codes.tobytes() + bytes(-codes.size % 4) + scales.tobytes()


def numpy_q8(values: Floats) -> tuple[bytes, Floats]:
    """Return the bytes that q8 makes of [H, T, D] values, and the values they stand for."""
    groups = values.reshape(-1, group_length(values.shape[-1]))
    amax = np.abs(groups).max(axis=1, keepdims=True)
    scale = amax / np.float32(127)
    codes = np.rint(groups * (np.float32(127) / amax)).astype(np.int8)
    decoded = codes.astype(np.float32) * scale
    return padded(codes.view(np.uint8), scale), decoded.reshape(values.shape)


def numpy_q4(values: Floats) -> tuple[bytes, Floats]:
    """Return the bytes that q4 makes of [H, T, D] values, and the values they stand for."""
    length = group_length(values.shape[-1])
    groups = values.reshape(-1, length)
    low = groups.min(axis=1, keepdims=True).astype(np.float16)
    span = groups.max(axis=1, keepdims=True) - low.astype(np.float32)
    scale = (np.maximum(span, 0) / np.float32(15)).astype(np.float16)
    step, least = scale.astype(np.float32), low.astype(np.float32)
    inverse = np.float32(1) / step
    codes = np.rint(np.clip((groups - least) * inverse, 0, 15)).astype(np.uint8)
    half = (length + 1) // 2
    upper = np.pad(codes[:, half:], ((0, 0), (0, 2 * half - length)))
    decoded = codes.astype(np.float32) * step + least
    scales = np.concatenate([scale, low], axis=1)
    return padded(codes[:, :half] | upper << 4, scales), decoded.reshape(values.shape)


def plane_of(data: npt.NDArray[Any]) -> Any:
    """Return a dovecote_plane over [H, CAPACITY, D] data, which must outlive it."""
    view = ffi.from_buffer(data.view(np.uint8), require_writable=True)
    plane = ffi.new("dovecote_plane *", (view, data.strides[0], data.shape[1]))
    return plane, view


def encode(codec: int, dtype: int, data: npt.NDArray[Any], side: int = 0) -> bytes:
    """Encode positions [START, START + TOKENS)."""
    heads, _, dim = data.shape
    size = lib.dovecote_codec_plane_bytes(codec, dtype, side, heads, dim, TOKENS)
    out = bytearray(size)
    plane, _view = plane_of(data)
    status = lib.dovecote_codec_encode(
        codec, dtype, side, heads, dim, plane, START, TOKENS, ffi.from_buffer(out)
    )
    assert status == lib.DOVECOTE_OK
    return bytes(out)


def decode(codec: int, dtype: int, data: npt.NDArray[Any], stored: bytes, side: int = 0) -> None:
    """Decode to positions [START, START + TOKENS) of data."""
    heads, _, dim = data.shape
    plane, _view = plane_of(data)
    status = lib.dovecote_codec_decode(codec, dtype, side, heads, dim, stored, START, TOKENS, plane)
    assert status == lib.DOVECOTE_OK


def some_values(dim: int, seed: int = 0) -> Floats:
    """Return [H, CAPACITY, D] values of mixed magnitude, as K and V have."""
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.01, 1.0, 30.0], size=(HEADS, CAPACITY, 1))
    values: Floats = (rng.standard_normal((HEADS, CAPACITY, dim)) * spread).astype(np.float32)
    return values


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("codec", "define"), ((2, numpy_q8), (4, numpy_q4)))
def test_grouped_codecs_store_what_the_definition_says(codec: int, define: Any, dim: int) -> None:
    """Bytes and decoded floats are those of the numpy definition, to the bit."""
    data = some_values(dim)
    want_bytes, want_values = define(data[:, START : START + TOKENS])
    stored = encode(codec, FLOAT32, data)
    assert stored == want_bytes
    target = np.zeros_like(data)
    decode(codec, FLOAT32, target, stored)
    assert np.array_equal(target[:, START : START + TOKENS], want_values)


def test_k8v4_is_q8_for_keys_and_q4_for_values() -> None:
    """Side 0 has q8's bytes, side 1 q4's."""
    data = some_values(64)
    assert encode(3, FLOAT32, data, side=0) == encode(2, FLOAT32, data)
    assert encode(3, FLOAT32, data, side=1) == encode(4, FLOAT32, data)


@pytest.mark.parametrize("dim", DIMS)
def test_f16_rounds_to_nearest_even(dim: int) -> None:
    """f16 stores numpy's own conversion."""
    data = some_values(dim)
    want = data[:, START : START + TOKENS].astype(np.float16)
    stored = encode(1, FLOAT32, data)
    assert stored[: want.nbytes] == want.tobytes()
    target = np.zeros_like(data)
    decode(1, FLOAT32, target, stored)
    assert np.array_equal(target[:, START : START + TOKENS], want.astype(np.float32))


@pytest.mark.parametrize("dtype", (FLOAT32, FLOAT16, BFLOAT16))
def test_exact_returns_every_bit(dtype: int) -> None:
    """Any bit pattern survives, NaN included, and no other position changes."""
    rng = np.random.default_rng(3)
    kind = np.uint32 if dtype == FLOAT32 else np.uint16
    data = rng.integers(0, np.iinfo(kind).max, (HEADS, CAPACITY, 64), dtype=kind)
    target = np.full_like(data, 7)
    decode(0, dtype, target, encode(0, dtype, data))
    inside = slice(START, START + TOKENS)
    assert np.array_equal(target[:, inside], data[:, inside])
    assert (np.delete(target, np.r_[inside], axis=1) == 7).all()


@pytest.mark.parametrize("codec", (1, 2, 3, 4))
def test_half_precision_planes_go_through_float32(codec: int) -> None:
    """A float16 plane is stored as its float32 values would be, and decodes to them rounded."""
    data = some_values(64).astype(np.float16)
    wide = data.astype(np.float32)
    stored = encode(codec, FLOAT16, data)
    assert stored == encode(codec, FLOAT32, wide)
    target, wide_target = np.zeros_like(data), np.zeros_like(wide)
    decode(codec, FLOAT16, target, stored)
    decode(codec, FLOAT32, wide_target, stored)
    assert np.array_equal(target, wide_target.astype(np.float16))


def test_bfloat16_planes_go_through_float32() -> None:
    """A bfloat16 plane is stored as its float32 values would be."""
    wide = (some_values(64).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    data = (wide.view(np.uint32) >> 16).astype(np.uint16)
    assert encode(2, BFLOAT16, data) == encode(2, FLOAT32, wide)


def test_a_plane_too_small_is_refused() -> None:
    """Positions past the capacity are an argument error, and nothing is written."""
    data = some_values(64)
    plane, _view = plane_of(data)
    out = bytearray(b"\x11" * lib.dovecote_codec_plane_bytes(2, 0, 0, HEADS, 64, TOKENS))
    status = lib.dovecote_codec_encode(
        2, 0, 0, HEADS, 64, plane, CAPACITY - TOKENS + 1, TOKENS, ffi.from_buffer(out)
    )
    assert status == lib.DOVECOTE_ERR_ARGUMENT
    assert set(out) == {0x11}
