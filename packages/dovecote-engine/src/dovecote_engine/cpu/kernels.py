"""Attention and the gate of a feed-forward on a CPU, by the kernels that the process has loaded.

`dovecote_native.blas` puts them into the process's global scope, where MLX finds its BLAS as well;
where that was not done, or MLX runs on a GPU, there are none and MLX's own are used. The contract
is native/src/compute.h. An array is evaluated, lent to C for one call, and let go (S2 of slab.py).

Does not know rows, models or caches. Engine thread only.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any, Final

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["MAX_HEAD_DIM", "CpuKernels", "find_kernels"]

# DC_ATTEND_MAX_DIM of compute.h.
MAX_HEAD_DIM: Final = 256
_FLOAT_BYTES: Final = 4


class _Heads(ctypes.Structure):
    """dc_heads: where an array [R, H, T, D] is, and its strides in elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("row", ctypes.c_size_t),
        ("head", ctypes.c_size_t),
        ("token", ctypes.c_size_t),
    )


class _Attention(ctypes.Structure):
    """dc_attention."""

    _fields_ = (
        ("queries", _Heads),
        ("keys", _Heads),
        ("values", _Heads),
        ("key_plane", _Heads),
        ("value_plane", _Heads),
        ("out", _Heads),
        ("offsets", ctypes.c_void_p),
        ("rows", ctypes.c_size_t),
        ("heads", ctypes.c_size_t),
        ("kv_heads", ctypes.c_size_t),
        ("tokens", ctypes.c_size_t),
        ("k_dim", ctypes.c_size_t),
        ("v_dim", ctypes.c_size_t),
        ("first_row", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("scale", ctypes.c_float),
    )


def _lent(array: mx.array) -> Floats:
    """The array's memory without a copy; whoever gets it must drop it soon."""
    exporter: Any = array
    return np.asarray(memoryview(exporter))


def _address(array: npt.NDArray[np.generic]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _heads(array: Floats) -> _Heads:
    row, head, token, _ = array.strides
    sizes = (row // _FLOAT_BYTES, head // _FLOAT_BYTES, token // _FLOAT_BYTES)
    return _Heads(_address(array), *sizes)


def _dense(array: mx.array) -> mx.array:
    """The evaluated array, copied only if its last dimension has gaps."""
    if _lent(array).strides[-1] == _FLOAT_BYTES:
        return array
    array = mx.contiguous(array)
    mx.eval(array)
    return array


class CpuKernels:
    """The process's kernels, for float32."""

    def __init__(self, process: ctypes.CDLL) -> None:
        self._attend = process.dovecote_attend
        self._swiglu = process.dovecote_swiglu
        self._swiglu.restype = None
        self._swiglu.argtypes = [*([ctypes.c_void_p] * 3), ctypes.c_size_t]

    def attend(
        self,
        fresh: tuple[mx.array, mx.array, mx.array],
        planes: tuple[mx.array, mx.array],
        rows: tuple[int, Sequence[int]],
        scale: float,
    ) -> mx.array:
        """Stores the new tokens' K and V and attends to all positions up to each token's own.

        `fresh`: queries [R, Hq, T, D], K and V [R, H, T, D]. `planes`: K and V of all rows, of
        which only the new positions are written. `rows`: the first row, and the position of the
        first new token in each. Returns [R, Hq, T, D].
        """
        count, heads, tokens, _ = fresh[0].shape
        # In the order in which the model goes on: its heads side by side.
        out = mx.zeros((count, tokens, heads, fresh[2].shape[-1]))
        mx.eval(*fresh, *planes, out)
        lent = [_lent(_dense(array)) for array in fresh]
        lent += [_lent(plane) for plane in planes]
        lent.append(_lent(out).transpose(0, 2, 1, 3))
        first_row, offsets = rows
        positions = np.array(offsets, np.int64)
        key_plane = planes[0].shape
        job = _Attention(
            *map(_heads, lent),
            *(_address(positions), count, heads, key_plane[1], tokens),
            *(key_plane[3], planes[1].shape[3], first_row, key_plane[2], scale),
        )
        status = self._attend(ctypes.byref(job))
        if status != 0:
            message = f"attention of {fresh[0].shape} over {key_plane} at {offsets} is not possible"
            raise RuntimeError(message)
        return out.transpose(0, 2, 1, 3)

    def swiglu(self, gate: mx.array, up: mx.array) -> mx.array:
        """silu(gate) * up, for two arrays of one shape."""
        out = mx.zeros(gate.shape)
        gate, up = mx.contiguous(gate), mx.contiguous(up)
        mx.eval(gate, up, out)
        lent = [_lent(array) for array in (gate, up, out)]
        self._swiglu(*map(_address, lent), gate.size)
        return out


def find_kernels() -> CpuKernels | None:
    """The process's kernels, if it has them and MLX runs on the CPU."""
    if sys.platform != "linux" or mx.default_device().type != mx.DeviceType.cpu:
        return None
    process = ctypes.CDLL(None)
    return CpuKernels(process) if hasattr(process, "dovecote_attend") else None
