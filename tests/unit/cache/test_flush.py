from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from slabs import count_up, keep, open_pool, restore, truth

from dovecote_cache import PoolClosed

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote_cache import Pool


def copy_of(path: Path) -> Path:
    """The pool file as a kill at this moment would leave it."""
    copy = path.with_name("copy.pool")
    copy.write_bytes(path.read_bytes())
    return copy


@pytest.mark.parametrize("flushed", (False, True))
def test_a_kill_costs_short_blocks_that_were_not_flushed(
    pool: Pool, pool_path: Path, flushed: bool
) -> None:
    """P7: whole blocks are in the file at once, the short one from the flush on."""
    tokens = count_up(10)
    keep(pool, tokens)
    if flushed:
        pool.flush()
    kept = 10 if flushed else 8
    with open_pool(copy_of(pool_path)) as reopened:
        assert restore(reopened, tokens) == (kept, truth(tokens[:kept]))


def test_a_short_block_is_written_only_if_it_lasts(pool: Pool) -> None:
    """A chain that grows within its last block writes that block once."""
    for count in range(1, 9):
        keep(pool, count_up(count))
    stats = pool.stats()
    assert stats.held_bytes == 0
    assert stats.bytes_written < 2.1 * pool.frame_bytes
    keep(pool, count_up(9))
    assert pool.stats().bytes_written == stats.bytes_written
    assert pool.stats().held_bytes == pool.frame_bytes


def test_a_closed_pool_is_not_flushed(pool_path: Path) -> None:
    """As with every other call."""
    pool = open_pool(pool_path)
    pool.close()
    with pytest.raises(PoolClosed):
        pool.flush()
