from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from slabs import count_up, keep, open_pool, restore, size_of

from dovecote_cache import Budget, BudgetTooSmall, CacheDirectory, keep_budget
from dovecote_cache.budget import BudgetReport, plan_budget
from dovecote_cache.survey import FileKind, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator

POOL = 10_000
LEAST = 1_000
IN_USE = "mine-0000000000000000.pool"


@pytest.fixture
def directory(tmp_path: Path) -> CacheDirectory:
    return CacheDirectory(tmp_path / "cache")


def stored(kind: FileKind, size: int, used: float = 0.0, name: str = "") -> StoredFile:
    return StoredFile(Path(name or f"{kind}-{size}-{used}"), kind, size, used)


def plant(path: Path, size: int, content: bytes = b"\1", used: float = 1000.0) -> Path:
    """A file of that size, last used then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content + bytes(size - len(content)))
    os.utime(path, (used, used))
    return path


def old_format(directory: CacheDirectory, number: int, size: int) -> Path:
    """A pool file as an earlier version wrote it."""
    return plant(directory.pools / f"old-{number:016x}.pool", size, b"DOVECOTE\0\0\0\0")


def keep_it(directory: CacheDirectory, budget: Budget) -> BudgetReport:
    return keep_budget(directory, directory.pools / IN_USE, budget)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another open file holds the lock, as a second server would."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def removed(files: list[StoredFile], total: int | None) -> list[StoredFile]:
    return [*plan_budget(files, Budget(POOL, LEAST, total)).remove]


def test_nothing_goes_while_all_of_it_fits() -> None:
    """The budget is met to the byte, and not more than met."""
    files = [stored("unreadable", 200), stored("other_pool", 300)]
    assert removed(files, POOL + 500) == []
    assert removed(files, POOL + 499) == files[:1]


def test_what_a_crash_left_goes_in_any_case() -> None:
    """Nobody will ever use it, however much room there is."""
    files = [stored("leftover", 100), stored("unreadable", 200), stored("leftover", 300)]
    assert removed(files, None) == [files[0], files[2]]


def test_files_go_in_the_stated_order() -> None:
    """Leftovers, then unreadable pools, then other pools, the longest unused first."""
    order = [
        stored("leftover", 1, 8.0),
        stored("leftover", 1, 9.0),
        stored("unreadable", 1, 3.0),
        stored("other_pool", 1, 1.0),
        stored("other_pool", 1, 2.0),
    ]
    for count in range(2, len(order) + 1):
        assert removed(order[::-1], POOL + len(order) - count) == order[:count]


@pytest.mark.parametrize("kind", ("model", "own", "foreign", "kept", "pool"))
def test_what_may_not_go_stays_and_counts(kind: FileKind) -> None:
    """The pool becomes smaller before anything of another kind is touched."""
    plan = plan_budget([stored(kind, 4_000)], Budget(POOL, LEAST, POOL))
    assert plan.remove == ()
    assert (plan.pool_bytes < POOL) == (kind != "pool")


def test_a_pool_takes_what_is_left() -> None:
    """It becomes as large as the budget allows, less a sixteenth for what grows beside it."""
    plan = plan_budget([stored("foreign", 4_000)], Budget(POOL, LEAST, POOL))
    assert plan.pool_bytes == 6_000 - 6_000 // 16


def test_a_smaller_pool_is_not_resized_at_each_start() -> None:
    """One that was made smaller before keeps its size while it takes most of the room."""
    budget = Budget(POOL, LEAST, POOL)
    for current, kept in ((6_000, True), (5_625, True), (4_500, True), (4_499, False)):
        files = [stored("foreign", 4_000), stored("pool", current)]
        assert (plan_budget(files, budget).pool_bytes == current) == kept
    files = [stored("foreign", 4_000), stored("pool", 6_001)]
    assert plan_budget(files, budget).pool_bytes == 5_625


def test_the_least_is_reached_before_the_budget_is_too_small() -> None:
    """The spare sixteenth is given up for it, the least itself is not."""
    files = [stored("foreign", POOL - LEAST)]
    assert plan_budget(files, Budget(POOL, LEAST, POOL)).pool_bytes == LEAST
    files = [stored("foreign", POOL - LEAST + 1)]
    assert plan_budget(files, Budget(POOL, LEAST, POOL)).pool_bytes < LEAST


def test_without_a_budget_one_more_pool_may_stay() -> None:
    """What may not be removed never makes the pool smaller; the rest may take as much as it."""
    files = [
        stored("foreign", 99 * POOL),
        stored("model", POOL),
        stored("other_pool", 6_000, 1.0),
        stored("other_pool", 4_001, 2.0),
        stored("unreadable", 1_000),
    ]
    plan = plan_budget(files, Budget(POOL, LEAST))
    assert plan.remove == (files[4], files[2])
    assert plan.pool_bytes == POOL


@pytest.mark.parametrize("total", (POOL, None))
def test_old_format_files_of_twice_the_cap_go(directory: CacheDirectory, total: int | None) -> None:
    """Dead files of twice the budget neither stop the cache nor stay."""
    for number in range(8):
        old_format(directory, number, POOL // 2)
    report = keep_it(directory, Budget(POOL, LEAST, total))
    assert report.pool_bytes == POOL
    assert report.found["unreadable"].bytes == 4 * POOL
    stay = 0 if total else POOL
    assert directory.used_bytes() == stay
    assert report.removed["unreadable"].bytes == 4 * POOL - stay
    assert report.removed["unreadable"].files == (8 if total else 6)


def test_a_pool_that_another_process_has_open_stays(directory: CacheDirectory) -> None:
    """The lock decides, for pools, half-made pools and half-made models; the next one goes."""
    old = old_format(directory, 1, 500)
    plant(directory.pools / "x-1111111111111111.pool", 500)
    half = plant(directory.pools / "y-1111111111111111.pool.new", 500)
    model = plant(directory.models / ".partial-1" / "model.safetensors", 500).parent
    with locked(old), locked(half), locked(directory.models / ".lock"):
        report = keep_it(directory, Budget(POOL, LEAST, POOL + 1500))
        assert old.exists()
        assert half.exists()
        assert model.exists()
        assert report.removed["unreadable"].files == 1
        assert report.pool_bytes == POOL
    report = keep_it(directory, Budget(POOL, LEAST, POOL))
    assert directory.used_bytes() == 0
    assert report.removed["leftover"].files == 2
    assert report.removed["unreadable"].files == 1


def test_an_open_pool_of_another_model_stays_sound(directory: CacheDirectory) -> None:
    """A server's pool is safe from another server's budget, which gets a smaller pool instead."""
    size = size_of(8)
    with open_pool(directory.pools / "other-1111111111111111.pool") as other:
        keep(other, count_up(8))
        report = keep_it(directory, Budget(size, size_of(1), size + size // 2))
        assert size_of(1) <= report.pool_bytes <= size // 2
        assert report.removed == {}
        assert restore(other, count_up(8))[0] == 8
    report = keep_it(directory, Budget(size, size_of(1), size + size // 2))
    assert report.removed["other_pool"].files == 1


def test_a_pool_over_its_budget_shrinks_and_keeps_what_fits(directory: CacheDirectory) -> None:
    """Foreign bytes cost cached chains, never the cache; the next start changes nothing."""
    path = directory.pools / IN_USE
    recent = count_up(8, 500)
    with open_pool(path, frames=8) as pool:
        keep(pool, count_up(12))
        keep(pool, recent)
    total = size_of(8)
    mine = plant(directory.path / "thesis.tex", total - size_of(5))
    for how in ("resized", "reused"):
        report = keep_it(directory, Budget(size_of(8), size_of(1), total))
        with open_pool(path, size_bytes=report.pool_bytes) as pool:
            assert pool.opened.how == how
            assert pool.frames >= 4
            assert restore(pool, recent)[0] == 8
        assert directory.used_bytes() <= total
    assert mine.exists()


def test_a_budget_too_small_for_anything_is_an_error(directory: CacheDirectory) -> None:
    """It names the sizes, and the foreign file that causes it stays."""
    mine = plant(directory.path / "thesis.tex", POOL)
    with pytest.raises(BudgetTooSmall, match="leaves 500 for the pool beside 10000") as raised:
        keep_it(directory, Budget(POOL, LEAST, POOL + 500))
    error = raised.value
    assert (error.total_bytes, error.rest_bytes, error.least_bytes) == (POOL + 500, POOL, LEAST)
    assert mine.exists()


def test_the_pool_used_last_is_the_last_to_go(directory: CacheDirectory) -> None:
    """Opening a pool counts as use, even if nothing is written."""
    first, second = (directory.pools / f"{name}-1111111111111111.pool" for name in "ab")
    for path in (first, second):
        open_pool(path).close()
        os.utime(path, (1000.0, 1000.0))
    open_pool(first).close()
    keep_it(directory, Budget(POOL, LEAST, POOL + size_of(8)))
    assert first.exists()
    assert not second.exists()


def test_checkpoints_of_the_pool_count_with_their_limit() -> None:
    """However many there are now: they may grow, and the pool leaves them the room."""
    files = [stored("states", 3_000), stored("foreign", 1_000)]
    budget = Budget(POOL, LEAST, POOL, states_bytes=4_000)
    assert plan_budget(files, budget).pool_bytes == 5_000 - 5_000 // 16
    assert plan_budget(files[1:], budget).pool_bytes == 5_000 - 5_000 // 16
    assert plan_budget(files, Budget(POOL, LEAST, states_bytes=4_000)).pool_bytes == POOL


def test_checkpoints_of_other_pools_go(directory: CacheDirectory) -> None:
    """Those whose pool is gone in any case, those of a pool when the budget asks; their directory
    goes with the last one. Those of a pool that is open elsewhere stay.
    """
    gone = plant(directory.pools / "gone.states" / "00.state", 100)
    other = directory.pools / "other-1111111111111111.pool"
    open_pool(other).close()
    theirs = plant(directory.pools / "other-1111111111111111.states" / "00.state", 100)
    size = other.stat().st_size
    keep_it(directory, Budget(2 * size, LEAST))
    assert not gone.parent.exists()
    assert theirs.exists()
    with locked(other):
        keep_it(directory, Budget(2 * size, LEAST, 2 * size + 50))
        assert theirs.exists()
    keep_it(directory, Budget(2 * size, LEAST, 2 * size + 50))
    assert not theirs.parent.exists()
