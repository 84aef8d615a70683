"""What this package raises.

    CacheError
    |-- PoolExhausted      fewer frames can be promised than asked for: nothing was reserved
    |-- PoolBusy           another process, or this one, has the pool open
    |-- PoolUnreadable     not a pool, another format version, or a damaged header
    |-- PoolMismatch       a sound pool of another fingerprint, geometry, codec or size
    |-- PoolIOError        a system call failed: carries errno and path
    |-- PoolInUse          the pool cannot close while leases are open
    |-- PoolBroken         an invariant of the pool does not hold
    |-- BudgetTooSmall     the disk budget has no room for the least that a pool can do with
    |-- AgentUnknown       the agents' book has no agent of that name
    |-- NameTaken          it has one already
    |-- ArchiveUnusable    not an archive of this version, cut off or damaged
    |-- ArchiveMismatch    a sound archive, made for another model, codec or block size
    |-- BookUnusable       the agents' book cannot be read or written
    `-- Closed             a handle was used after its end
        |-- PoolClosed
        |-- LeaseClosed
        |-- PlanesClosed
        `-- BookClosed

Arguments that break their contract raise ValueError, allocations that fail MemoryError, and the
file operations of `CacheDirectory` and `digest_weights` OSError. `Pool.open` itself answers
PoolUnreadable and PoolMismatch, by replacing or resizing the file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AgentUnknown",
    "ArchiveMismatch",
    "ArchiveUnusable",
    "BookClosed",
    "BookUnusable",
    "BudgetTooSmall",
    "CacheError",
    "Closed",
    "LeaseClosed",
    "NameTaken",
    "PlanesClosed",
    "PoolBroken",
    "PoolBusy",
    "PoolClosed",
    "PoolExhausted",
    "PoolIOError",
    "PoolInUse",
    "PoolMismatch",
    "PoolUnreadable",
]


class CacheError(Exception):
    """Root of what this package raises."""


class PoolExhausted(CacheError):
    """`needed_frames` were asked for while only `available_frames` could be promised."""

    def __init__(self, needed_frames: int, available_frames: int) -> None:
        super().__init__(f"{needed_frames} frames needed, {available_frames} available")
        self.needed_frames = needed_frames
        self.available_frames = available_frames


class PoolBusy(CacheError):
    """The pool at `path` is open elsewhere; nothing was changed."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(f"the pool {path} is already open, in this process or another")
        self.path = path


class PoolUnreadable(CacheError):
    """The file at `path` is no pool that this version can read."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(f"{path} is not a pool, has another format version or a damaged header")
        self.path = path


class PoolMismatch(CacheError):
    """The pool at `path` was made for something else."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(f"{path} has another fingerprint, geometry, codec or size")
        self.path = path


class PoolIOError(CacheError):
    """A system call on the pool at `path` (None: in memory) failed with `errno`."""

    def __init__(self, errno: int, path: Path | None) -> None:
        super().__init__(f"[Errno {errno}] {os.strerror(errno)}: {path or 'memory-only pool'}")
        self.errno = errno
        self.path = path


class PoolInUse(CacheError):
    """The pool has `leases` open leases, so it stays open."""

    def __init__(self, leases: int) -> None:
        super().__init__(f"{leases} leases are still open")
        self.leases = leases


class PoolBroken(CacheError):
    """`Pool.check` found a broken invariant: the pool must not be used any longer."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(f"the pool {path or 'in memory'} breaks one of its invariants")
        self.path = path


class BudgetTooSmall(CacheError):
    """Of `total_bytes`, other files in `path` take `rest_bytes`; a pool needs `least_bytes`."""

    def __init__(self, path: Path, total_bytes: int, rest_bytes: int, least_bytes: int) -> None:
        super().__init__(
            f"the disk budget of {total_bytes} bytes leaves {max(0, total_bytes - rest_bytes)} for "
            f"the pool beside {rest_bytes} of other files in {path}, and it needs {least_bytes}"
        )
        self.path = path
        self.total_bytes = total_bytes
        self.rest_bytes = rest_bytes
        self.least_bytes = least_bytes


class AgentUnknown(CacheError):
    """There is no agent `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no agent {name!r}")
        self.name = name


class NameTaken(CacheError):
    """There is an agent `name` already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is an agent {name!r} already")
        self.name = name


class ArchiveUnusable(CacheError):
    """The file at `path` is no archive that this version can read; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ArchiveMismatch(CacheError):
    """The archive at `path` was made for another model, codec or block size."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was made for another model, codec or block size")
        self.path = path


class BookUnusable(CacheError):
    """SQLite refused the book at `path`; `reason` is its message."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Closed(CacheError):
    """A handle was used after its end."""

    what = "handle"

    def __init__(self) -> None:
        super().__init__(f"the {self.what} is closed")


class PoolClosed(Closed):
    """The pool was closed before."""

    what = "pool"


class LeaseClosed(Closed):
    """The lease was released before."""

    what = "lease"


class PlanesClosed(Closed):
    """The planes were used outside their `with` block."""

    what = "set of row planes"


class BookClosed(Closed):
    """The book was closed before."""

    what = "agents' book"
