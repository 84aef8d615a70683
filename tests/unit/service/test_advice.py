from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dovecote.advice import advice_on
from dovecote_cache import BookUnusable, BudgetTooSmall, PoolBroken, PoolBusy, PoolIOError
from dovecote_engine import ModelError

PATH = Path("a.pool")


@pytest.mark.parametrize(
    ("error", "word"),
    (
        (PoolIOError(errno.ENOSPC, PATH), "--pool-size"),
        (PoolIOError(errno.EFBIG, PATH), "--pool-size"),
        (PoolIOError(errno.EDQUOT, PATH), "--pool-size"),
        (PoolIOError(errno.EIO, PATH), "--memory-only"),
        (PoolIOError(errno.EROFS, PATH), "writable"),
        (PermissionError(errno.EACCES, "no"), "writable"),
        (OSError(errno.EADDRINUSE, "taken"), "--port"),
        (PoolBusy(PATH), "other server"),
        (BudgetTooSmall(PATH, 1, 2, 3), "--disk-budget"),
        (BookUnusable(PATH, "damaged"), "--cache-dir"),
        (MemoryError(), "--pool-size"),
    ),
)
def test_the_advice_names_a_way_out(error: Exception, word: str) -> None:
    """Each failure of a start has an option that gets around it."""
    assert word in advice_on(error)


def test_the_cause_of_an_error_is_advised_on() -> None:
    """A model that cannot be converted may be a matter of the disk."""
    error = ModelError("cannot be converted")
    error.__cause__ = OSError(errno.ENOSPC, "full")
    assert advice_on(error) == advice_on(error.__cause__)


def test_an_error_that_says_everything_gets_no_advice() -> None:
    """Nothing is made up."""
    assert advice_on(PoolBroken(PATH)) == ""
    assert advice_on(PoolIOError(errno.ENOTTY, PATH)) == ""
