"""What the cache directory may take of the disk, and what goes when that is too little (P6).

Everything below the directory counts, whoever put it there. What a crash left half made goes. Where
the pool does not fit beside the rest, files go in this order, only as many as need be:

    1  pool files that this version cannot read
    2  pools of other models, codecs and block sizes, the longest unused first

Never a file that another process has locked, never a foreign one, never the pool in use. If the
pool still does not fit it becomes smaller, and keeps what fits; where not even the least fits,
`BudgetTooSmall` says so. The cache is never switched off.

Does not know what a pool holds, nor who decided on the budget.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from dovecote_cache.checkpoints import is_checkpoint
from dovecote_cache.directory import MODELS_LOCK
from dovecote_cache.errors import BudgetTooSmall, PoolBusy
from dovecote_cache.opening import sole_claim
from dovecote_cache.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dovecote_cache.directory import CacheDirectory
    from dovecote_cache.survey import FileKind, StoredFile

__all__ = [
    "Budget",
    "BudgetPlan",
    "BudgetReport",
    "Tally",
    "keep_budget",
    "make_room",
    "plan_budget",
]

# The order of removal.
_RANK: Final[Mapping[FileKind, int]] = {"leftover": 0, "unreadable": 1, "other_pool": 2}
# A pool that was made smaller leaves a sixteenth of the room to the book and the like, and stays
# as it is while it takes three quarters or more of the room: else each start would copy it.
_SPARE_FRACTION: Final = 16
_WORTHWHILE: Final = 0.75


@dataclass(frozen=True, slots=True)
class Budget:
    """What the pool is to have, what it can do with, and what all files together may take.

    `total_bytes` None: the pool, as much again for pools of other fingerprints, and whatever may
    not be removed. The pool then never becomes smaller. `states_bytes`: what the pool's checkpoints
    may come to, which counts whole from the start.
    """

    pool_bytes: int
    least_bytes: int
    total_bytes: int | None = None
    states_bytes: int = 0

    def total(self, files: Iterable[StoredFile]) -> int:
        """What these files and the pool may take."""
        if self.total_bytes is not None:
            return self.total_bytes
        staying = sum(file.bytes for file in _beside_pool(files) if file.kind not in _RANK)
        return 2 * self.pool_bytes + staying + self.states_bytes


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """What is to go, in that order, and the size of the pool then; less than 0 if nothing fits."""

    remove: tuple[StoredFile, ...]
    pool_bytes: int


@dataclass(frozen=True, slots=True)
class Tally:
    """So many files of so many bytes together."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BudgetReport:
    """What `keep_budget` found and did, by kind of file, for the caller's log.

    `beside_bytes` is what is left beside the pool.
    """

    total_bytes: int
    pool_bytes: int
    beside_bytes: int
    found: Mapping[str, Tally]
    removed: Mapping[str, Tally]


def plan_budget(files: Sequence[StoredFile], budget: Budget) -> BudgetPlan:
    """Which of the files have to go for the pool, and how large it can be. Touches nothing."""
    rest = sum(file.bytes for file in _beside_pool(files)) + budget.states_bytes
    total = budget.total(files)
    removable = [file for file in files if file.kind in _RANK]
    remove = []
    for file in sorted(removable, key=lambda file: (_RANK[file.kind], file.used, file.path)):
        if file.kind != "leftover" and rest + budget.pool_bytes <= total:
            break
        remove.append(file)
        rest -= file.bytes
    current = sum(file.bytes for file in files if file.kind == "pool")
    return BudgetPlan(tuple(remove), _pool_size(total - rest, current, budget))


def keep_budget(directory: CacheDirectory, pool_path: Path, budget: Budget) -> BudgetReport:
    """Make room for the pool at `pool_path`; the report says how large it is to be opened.

    Raises: BudgetTooSmall if the least that a pool can do with does not fit; OSError.
    """
    report = make_room(directory, pool_path, budget)
    if report.pool_bytes < budget.least_bytes:
        raise BudgetTooSmall(
            directory.path, report.total_bytes, report.beside_bytes, budget.least_bytes
        )
    return report


def make_room(directory: CacheDirectory, pool_path: Path, budget: Budget) -> BudgetReport:
    """As `keep_budget`, without a least: the report's pool may be smaller than nothing.

    For a pool that is open, too: then it tells whether there is still room for it. Raises: OSError.
    """
    files = survey(directory, pool_path)
    found, removed = _tally(files), []
    while (plan := plan_budget(files, budget)).remove:
        file = plan.remove[0]
        files.remove(file)
        if _remove(file, directory):
            removed.append(file)
        else:
            files.append(replace(file, kind="kept"))
    beside = sum(file.bytes for file in _beside_pool(files)) + budget.states_bytes
    return BudgetReport(budget.total(files), plan.pool_bytes, beside, found, _tally(removed))


def _beside_pool(files: Iterable[StoredFile]) -> Iterable[StoredFile]:
    """Without the pool's checkpoints, which count with their limit."""
    return (file for file in files if file.kind not in ("pool", "states"))


def _pool_size(room: int, current: int, budget: Budget) -> int:
    if room >= budget.pool_bytes:
        return budget.pool_bytes
    if max(_WORTHWHILE * room, budget.least_bytes) <= current <= room:
        return current
    return max(room - room // _SPARE_FRACTION, min(room, budget.least_bytes))


def _tally(files: Sequence[StoredFile]) -> dict[str, Tally]:
    numbers, sizes = Counter[str](), Counter[str]()
    for file in files:
        numbers[file.kind] += 1
        sizes[file.kind] += file.bytes
    return {kind: Tally(numbers[kind], sizes[kind]) for kind in sorted(numbers)}


def _remove(file: StoredFile, directory: CacheDirectory) -> bool:
    """Whether the file is gone. Not if someone uses it or the system refuses."""
    try:
        if file.path.is_dir():
            return _remove_half_made_model(file.path, directory)
        if is_checkpoint(file.path):
            return _remove_checkpoint(file.path)
        with sole_claim(file.path):
            file.path.unlink()
    except FileNotFoundError:
        return True
    except (PoolBusy, OSError):
        return False
    return True


def _remove_checkpoint(path: Path) -> bool:
    """While its pool is open elsewhere, so is the checkpoint."""
    with suppress(FileNotFoundError), sole_claim(path.parent.with_suffix(".pool")):
        path.unlink()
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()  # the last one takes the directory along
    return True


def _remove_half_made_model(path: Path, directory: CacheDirectory) -> bool:
    """While the lock of the models is held elsewhere, the model is being made."""
    descriptor = os.open(
        directory.models / MODELS_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(descriptor)
    return True
