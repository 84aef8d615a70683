"""How a pool file is found, made, resized or replaced.

A file of another size is not thrown away: its chains move into a new file, as many as fit. A file
that cannot be used - damaged, of another format, or made for something else - is only a cache, so
it is deleted and made anew. What was done is told in a `PoolOpening`; nothing is logged.

    NAME.pool             the pool, locked by whoever has it open
    NAME.pool.new         a pool being made, until it is complete
    NAME.pool.resizing    a resize under way; while it is made it ends in .resizing.new

Only the holder of NAME.pool's lock resizes, so what it finds of these was left by a crash.

Does not know what is in the pool.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from dovecote_cache import _native
from dovecote_cache.errors import PoolBusy, PoolIOError, PoolMismatch, PoolUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dovecote_cache._native import PoolHandle
    from dovecote_cache.geometry import CodecName, Geometry

__all__ = ["PoolOpening", "PoolSpec", "open_file", "sole_claim"]

_RESIZING: Final = ".resizing"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a pool is made for. `fingerprint` has 32 bytes (P8).

    Raises: ValueError if it has another length, or if the codec cannot store one of the layers.
    """

    geometry: Geometry
    codec: CodecName
    fingerprint: bytes

    def __post_init__(self) -> None:
        if len(self.fingerprint) != 32:
            raise ValueError(f"a fingerprint has 32 bytes, not {len(self.fingerprint)}")
        self.geometry.payload_bytes(self.codec)


@dataclass(frozen=True, slots=True)
class PoolOpening:
    """What `Pool.open` did, for the caller's log.

    `reason` says why a file was resized or replaced. `kept_blocks` and `lost_blocks` count the
    sealed blocks of a resized file.
    """

    how: Literal["created", "reused", "resized", "replaced"]
    reason: str = ""
    kept_blocks: int = 0
    lost_blocks: int = 0


def open_file(spec: PoolSpec, path: Path, size_bytes: int) -> tuple[PoolHandle, PoolOpening]:
    """Open the pool at `path` at `size_bytes`, whatever lies there now.

    Raises: ValueError, MemoryError, PoolIOError, PoolBusy; a sound pool is then unchanged.
    """
    try:
        return _open_as_asked(spec, path, size_bytes)
    except PoolMismatch:
        return _open_other(spec, path, size_bytes)
    except PoolUnreadable as error:
        return _replace(spec, path, size_bytes, reason=str(error))


def _open_as_asked(spec: PoolSpec, path: Path, size_bytes: int) -> tuple[PoolHandle, PoolOpening]:
    with _pool_errors(path):
        existed = path.exists()
    pool = _native.open_pool(spec, path, size_bytes)
    _discard_leftovers(path)
    with _pool_errors(path):
        os.utime(path)  # its last use, for the disk budget: a turn that only reads writes nothing
    return pool, PoolOpening("reused" if existed else "created")


def _open_other(spec: PoolSpec, path: Path, size_bytes: int) -> tuple[PoolHandle, PoolOpening]:
    """Resize the file if its size is all that differs, replace it otherwise."""
    try:
        source = _native.open_pool(spec, path, 0)
    except (PoolMismatch, PoolUnreadable) as error:
        return _replace(spec, path, size_bytes, reason=str(error))
    try:
        return _resize(spec, path, size_bytes, source)
    finally:
        _native.close_pool(source)


def _resize(
    spec: PoolSpec, path: Path, size_bytes: int, source: PoolHandle
) -> tuple[PoolHandle, PoolOpening]:
    """Adopt `source` into a new file and rename that over `path`.

    `source` holds its lock until its name is gone, and the new file has its own from its first
    moment, so no other process can slip in between. A crash leaves the one or the other, whole.
    """
    _discard_leftovers(path)
    temporary = _beside(path, _RESIZING)
    pool = _native.open_pool(spec, temporary, size_bytes)
    try:
        kept = _native.adopt_pool(pool, source, temporary)
        _native.sync_pool(pool, temporary)
        with _pool_errors(path):
            temporary.replace(path)
    except BaseException:
        _native.close_pool(pool)
        _discard_leftovers(path)
        raise
    return pool, _resized(source, pool, kept)


def _resized(source: PoolHandle, pool: PoolHandle, kept: int) -> PoolOpening:
    before, after = _native.pool_stats(source), _native.pool_stats(pool)
    reason = f"the file had {before['file_bytes']} bytes, not {after['file_bytes']}"
    return PoolOpening("resized", reason, kept, before["leased"] + before["cached"] - kept)


def _replace(
    spec: PoolSpec, path: Path, size_bytes: int, reason: str
) -> tuple[PoolHandle, PoolOpening]:
    """Delete the unusable file and make a pool in its place."""
    with _pool_errors(path), sole_claim(path):
        _discard_leftovers(path)
        path.unlink()
        pool = _native.open_pool(spec, path, size_bytes)
    return pool, PoolOpening("replaced", reason)


@contextmanager
def sole_claim(path: Path) -> Iterator[None]:
    """Hold the lock of the file now at `path`, as whoever opens it as a pool would.

    Of two processes that find the same unusable file only one replaces it. Raises: PoolBusy if the
    file is locked, or is no longer the one at `path`; OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if not os.path.samestat(path.stat(), status):
            raise PoolBusy(path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file", path)
        yield
    except BlockingIOError as error:
        raise PoolBusy(path) from error
    finally:
        os.close(descriptor)


@contextmanager
def _pool_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PoolIOError(error.errno or 0, path) from error


def _discard_leftovers(path: Path) -> None:
    """Remove what a crash left beside the pool, whose lock the caller holds."""
    with _pool_errors(path):
        for suffix in (".new", _RESIZING, f"{_RESIZING}.new"):
            _beside(path, suffix).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
