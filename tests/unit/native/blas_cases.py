"""Cases that need a process of their own: the loader's global scope is not undone.

`python blas_cases.py NAME` runs one case, which fails by raising, and prints "ok".
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from dovecote_native.blas import activate

Floats = npt.NDArray[np.float32]
Scales = tuple[float, float]
PLAIN = (1.0, 0.0)  # alpha and beta
ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE = 101, 111, 112
KERNELS = (b"avx2", b"avx512", b"openblas")
# Inputs, then inner lengths (below, at and past a vector), then outputs (odd, less than a tile).
SHAPES = [
    (m, k, n)
    for m in (*range(1, 10), 12, 50, 103)
    for k in (1, 7, 16, 63, 64, 576)
    for n in (1, 3, 4, 577)
]


def shim() -> Any:
    """Activate, and return the process's own global scope."""
    report = activate(2)
    assert report.active, report
    library = ctypes.CDLL(None)
    library.dovecote_blas_calls.restype = ctypes.c_uint64
    library.dovecote_blas_skinny_calls.restype = ctypes.c_uint64
    library.dovecote_blas_override.argtypes = [ctypes.c_char_p]
    return library


def pointer(array: Floats) -> Any:
    """Return the address that cblas takes."""
    return ctypes.c_void_p(array.ctypes.data)


def linear(library: Any, x: Floats, w: Floats, out: Floats, scales: Scales) -> None:
    """Call cblas_sgemm as MLX does for a linear layer; rows may be longer than used."""
    alpha, beta = scales
    library.cblas_sgemm(
        *(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, x.shape[0], w.shape[0], x.shape[1]),
        *(ctypes.c_float(alpha), pointer(x), x.strides[0] // 4, pointer(w), w.strides[0] // 4),
        *(ctypes.c_float(beta), pointer(out), out.strides[0] // 4),
    )


def error(got: Floats, x: Floats, w: Floats) -> float:
    """Return the largest difference from float64, relative to the sums of magnitudes."""
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    weight = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64).T
    return float((np.abs(got - exact) / weight).max())


def some(rng: np.random.Generator, *shape: int) -> Floats:
    """Return normal float32 values."""
    return rng.standard_normal(shape, dtype=np.float32)


def mlx_agrees_with_numpy() -> None:
    """mx.matmul through the shim, for skinny and other shapes, and every call is counted."""
    library = shim()
    import mlx.core as mx

    rng = np.random.default_rng(0)
    before = library.dovecote_blas_calls()
    for m, k, n in SHAPES:
        x, w = some(rng, m, k), some(rng, n, k)
        assert error(np.array(mx.array(x) @ mx.array(w).T), x, w) < 1e-5, (m, k, n)
        assert error(np.array(mx.array(x) @ mx.array(w.T.copy())), x, w) < 1e-5, (m, k, n)
    assert library.dovecote_blas_calls() - before >= len(SHAPES)
    assert library.dovecote_blas_skinny_calls() >= sum(1 for m, _, _ in SHAPES if 1 < m <= 8)


def kernels_agree_with_numpy() -> None:
    """Every kernel, with padded rows, alpha and beta; columns past N are left alone."""
    library = shim()
    rng = np.random.default_rng(1)
    kernels = [name for name in KERNELS if library.dovecote_blas_override(name) == 0]
    for m, k, n in SHAPES:
        x, w, c = some(rng, m, k + 3)[:, :k], some(rng, n, k + 5)[:, :k], some(rng, m, n + 2)
        for name in kernels:
            library.dovecote_blas_override(name)
            out = c.copy()
            linear(library, x, w, out[:, :n], (0.5, 2.0))
            wide_x, wide_w = np.hstack([0.5 * x, 2 * c[:, :n]]), np.hstack([w, np.eye(n)])
            assert error(out[:, :n], wide_x, wide_w) < 1e-5, (name, m, k, n)
            assert np.array_equal(out[:, n:], c[:, n:]), (name, m, k, n)


def rows_change_no_bit() -> None:
    """Our own kernels give a row the same numbers alone and among any others."""
    library = shim()
    rng = np.random.default_rng(5)
    for name, most in ((b"avx2", 12), (b"avx512", 150)):
        if library.dovecote_blas_override(name) != 0:
            continue
        for k, n in ((64, 3), (577, 130), (1536, 576)):
            x, w, want = some(rng, most, k), some(rng, n, k), np.zeros((most, n), np.float32)
            for row in range(most):
                linear(library, x[row : row + 1], w, want[row : row + 1], PLAIN)
            for rows in (2, 7, 8, 9, 12, 47, 48, 49, 55, 150):
                out = np.zeros((min(rows, most), n), np.float32)
                linear(library, x[: len(out)], w, out, PLAIN)
                assert np.array_equal(out, want[: len(out)]), (name, k, n, rows)


def beta_zero_does_not_read() -> None:
    """With beta 0 the old contents do not matter, NaN or not."""
    library = shim()
    rng = np.random.default_rng(2)
    x, w = some(rng, 3, 64), some(rng, 50, 64)
    out = np.full((3, 50), np.nan, dtype=np.float32)
    linear(library, x, w, out, PLAIN)
    assert error(out, x, w) < 1e-5


def threads_share_the_crew() -> None:
    """Products of several threads at once are each right, and equal whatever the crew does."""
    library = shim()
    rng = np.random.default_rng(3)
    x, w = some(rng, 5, 576), some(rng, 1536, 576)
    want = np.zeros((5, 1536), dtype=np.float32)
    linear(library, x, w, want, PLAIN)
    wrong: list[int] = []

    def repeat() -> None:
        out = np.empty_like(want)
        for turn in range(200):
            out.fill(0)
            linear(library, x, w, out, PLAIN)
            if not np.array_equal(out, want):
                wrong.append(turn)

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def a_forked_child_starts_anew() -> None:
    """A child forked after the crew ran computes, with workers of its own."""
    library = shim()
    rng = np.random.default_rng(4)
    x, w = some(rng, 2, 576), some(rng, 1536, 576)
    want = np.zeros((2, 1536), dtype=np.float32)
    linear(library, x, w, want, PLAIN)
    child = os.fork()
    if child == 0:
        out = np.zeros_like(want)
        for _ in range(20):
            linear(library, x, w, out, PLAIN)
        os._exit(0 if np.array_equal(out, want) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    linear(library, x, w, want, PLAIN)


def activation_is_idempotent() -> None:
    """A second activation reports the first one's threads."""
    first, second = activate(2), activate(7)
    assert first.active
    assert second.active
    assert (first.threads, second.threads) == (2, 2)
    assert first.library == second.library


def activation_after_mlx_is_reported() -> None:
    """Once mlx.core is imported nothing is loaded, and the report says why."""
    import mlx.core  # noqa: F401  (its import is what is tested)

    report = activate()
    assert not report.active
    assert "already imported" in report.reason
    assert not hasattr(ctypes.CDLL(None), "dovecote_blas_calls")


def activation_without_openblas_is_reported() -> None:
    """Without scipy-openblas32 the report says so, and MLX keeps its own BLAS."""
    find_spec = importlib.util.find_spec

    def without_openblas(name: str, *rest: Any) -> Any:
        return None if "openblas" in name else find_spec(name, *rest)

    sys.modules["dovecote_native.blas"].__dict__["find_spec"] = without_openblas
    report = activate()
    assert not report.active
    assert "scipy-openblas32" in report.reason


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
