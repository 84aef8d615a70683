"""A BLAS for MLX's CPU backend on Linux: OpenBLAS in the place of the bundled reference BLAS.

Knows where libraries lie and how the dynamic loader binds names; nothing of models or servers. The
state is the process's own: once the shim is in its global scope it stays there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = ["BlasReport", "activate", "mlx_needs_shim"]

# dovecote_blas_open's results.
_OPEN_ERRORS = {-1: "cannot be loaded", -2: "lacks a function that is needed"}


@dataclass(frozen=True, slots=True)
class BlasReport:
    """What `activate` found: `reason` says why it is inactive, or what active means."""

    active: bool
    library: str
    threads: int
    reason: str


def _inactive(reason: str) -> BlasReport:
    return BlasReport(active=False, library="", threads=0, reason=reason)


def _active(library: str, threads: int) -> BlasReport:
    return BlasReport(active=True, library=library, threads=threads, reason="OpenBLAS serves MLX")


def mlx_needs_shim() -> bool:
    """Tell whether the installed MLX brings the reference BLAS. Does not import mlx.core."""
    spec = find_spec("mlx")
    if sys.platform != "linux" or spec is None:
        return False
    locations = spec.submodule_search_locations or []
    return any(any(Path(place).parent.glob("mlx*.libs/libblas-*.so*")) for place in locations)


def _openblas() -> Path | None:
    """Return OpenBLAS's library without importing its package."""
    spec = find_spec("scipy_openblas32")
    places = (spec.submodule_search_locations or []) if spec is not None else []
    found = [Path(place) / "lib" / "libscipy_openblas.so" for place in places]
    return next((path for path in found if path.is_file()), None)


def _shim() -> Path | None:
    spec = find_spec("dovecote_native._blas")
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _already_active() -> BlasReport | None:
    process = ctypes.CDLL(None)
    if not hasattr(process, "dovecote_blas_threads"):
        return None
    return _active(str(_openblas() or ""), process.dovecote_blas_threads())


def _load(shim: Path, openblas: Path, threads: int) -> BlasReport:
    """Bind the shim to OpenBLAS, and only then let the loader find its names."""
    status = ctypes.CDLL(str(shim)).dovecote_blas_open(os.fsencode(openblas), threads)
    if status != 0:
        return _inactive(f"{openblas} {_OPEN_ERRORS[status]}")
    loaded = ctypes.CDLL(str(shim), mode=ctypes.RTLD_GLOBAL)
    return _active(str(openblas), loaded.dovecote_blas_threads())


def activate(threads: int | None = None) -> BlasReport:
    """Put OpenBLAS behind MLX; to be called before `mlx.core` is first imported.

    `threads` counts the calling one; by default as many as this process may use processors. A
    second call changes nothing and reports the first one's threads. Where MLX does not need it, or
    it cannot be done, the report is inactive and says why; nothing is raised, nothing has changed.
    """
    if not mlx_needs_shim():
        return _inactive("MLX is not installed, or does not bring the reference BLAS")
    active = _already_active()
    if active is not None:
        return active
    if "mlx.core" in sys.modules:
        return _inactive("mlx.core is already imported: activate the BLAS before")
    openblas, shim = _openblas(), _shim()
    if openblas is None:
        return _inactive("scipy-openblas32 is not installed")
    if shim is None:
        return _inactive("dovecote_native was built without its BLAS")
    return _load(shim, openblas, threads or len(os.sched_getaffinity(0)))
