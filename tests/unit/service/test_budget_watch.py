"""The disk budget is kept while the server runs, not only at its start."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from slabs import open_pool, size_of
from structlog.testing import capture_logs

from dovecote.budget_watch import BudgetWatch
from dovecote_cache import Budget, CacheDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dovecote_cache import Pool

ROOM = 4096


@pytest.fixture
def directory(tmp_path: Path) -> CacheDirectory:
    return CacheDirectory(tmp_path / "cache")


@pytest.fixture
def path(directory: CacheDirectory) -> Path:
    return directory.pool_path("mine", bytes(32))


@pytest.fixture
def pool(path: Path) -> Iterator[Pool]:
    with open_pool(path) as pool:
        yield pool


def other_pool(directory: CacheDirectory) -> Path:
    """A sound pool of another model, closed."""
    path = directory.pool_path("other", bytes([1] * 32))
    open_pool(path).close()
    return path


def events(watch: BudgetWatch, path: Path) -> list[str]:
    with capture_logs() as logs:
        watch.look(path)
    return [log["event"] for log in logs]


def test_a_pool_that_came_later_goes_when_the_budget_asks(
    directory: CacheDirectory, path: Path, pool: Pool
) -> None:
    """As after a swap of models; with room enough it stays."""
    size = size_of(8)
    other = other_pool(directory)
    assert events(BudgetWatch(directory, pool, Budget(size, 0, 2 * size + ROOM)), path) == []
    assert other.exists()
    watch = BudgetWatch(directory, pool, Budget(size, 0, size + ROOM))
    assert events(watch, path) == ["disk_budget_kept"]
    assert not other.exists()
    assert path.stat().st_size == pool.stats().file_bytes
    pool.check()


def test_what_may_not_go_is_told_once(directory: CacheDirectory, path: Path, pool: Pool) -> None:
    """A warning when the budget is exceeded, and another only after it was met again."""
    foreign = directory.path / "film.mkv"
    size = size_of(8)
    watch = BudgetWatch(directory, pool, Budget(size, 0, size + ROOM))
    assert events(watch, path) == []
    foreign.write_bytes(bytes(4 * size))
    assert events(watch, path) == ["disk_budget_exceeded"]
    assert events(watch, path) == []
    foreign.unlink()
    assert events(watch, path) == []
    foreign.write_bytes(bytes(2 * ROOM))
    assert events(watch, path) == ["disk_budget_exceeded"]


def test_without_a_budget_one_other_pool_stays(
    directory: CacheDirectory, path: Path, pool: Pool
) -> None:
    """The default is the pool twice, beside whatever may not be removed."""
    (directory.path / "film.mkv").write_bytes(bytes(9 * size_of(8)))
    other = other_pool(directory)
    assert events(BudgetWatch(directory, pool, Budget(size_of(8), 0)), path) == []
    assert other.exists()


def test_a_directory_that_cannot_be_read_is_no_reason_to_stop(
    directory: CacheDirectory, path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look may have more luck."""
    watch = BudgetWatch(directory, pool, Budget(size_of(8), 0))

    def fail(*_: object) -> None:
        raise PermissionError(13, "not allowed")

    monkeypatch.setattr("dovecote.budget_watch.make_room", fail)
    assert events(watch, path) == ["disk_budget_unknown"]


def test_the_watch_ends_with_its_pool(directory: CacheDirectory, path: Path) -> None:
    """It looks until the pool is closed, and its thread does not outlive it by much."""
    other = other_pool(directory)
    with open_pool(path) as pool:
        BudgetWatch(directory, pool, Budget(size_of(8), 0, size_of(8)), every_s=0.001).start()
        (thread,) = [one for one in threading.enumerate() if one.name == "dovecote-budget"]
        while other.exists():
            thread.join(0.001)
            assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
