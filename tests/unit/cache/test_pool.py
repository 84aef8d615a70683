from __future__ import annotations

import gc
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from slabs import (
    BLOCK,
    FINGERPRINT,
    GEOMETRY,
    count_up,
    keep,
    open_pool,
    restore,
    size_of,
    truth,
)

from dovecote_cache import (
    Pool,
    PoolClosed,
    PoolExhausted,
    PoolInUse,
    PoolStats,
)
from dovecote_native import ffi

if TYPE_CHECKING:
    from pathlib import Path


def test_stats_have_the_names_of_the_c_struct() -> None:
    """Nothing of the C core's statistics is lost or renamed."""
    struct_fields = [name for name, _ in ffi.typeof("dovecote_pool_stats").fields]
    assert [field.name for field in fields(PoolStats)] == struct_fields


def test_an_empty_pool_is_all_free(pool: Pool) -> None:
    """P4 holds from the first moment: every frame is free."""
    stats = pool.stats()
    assert (stats.leased, stats.cached, stats.free) == (0, 0, stats.frames)
    assert stats.frames == pool.frames == 8
    assert stats.frame_bytes == pool.frame_bytes


def test_a_pool_file_is_for_its_owner_only(pool: Pool, pool_path: Path) -> None:
    """The file has mode 0600 and exactly the size asked for (P6)."""
    status = pool_path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == pool.stats().file_bytes <= size_of(8)


def test_a_memory_pool_works_without_a_file() -> None:
    """`path` None keeps everything in memory."""
    tokens = count_up(6)
    with open_pool(None) as pool:
        keep(pool, tokens)
        assert pool.path is None
        assert restore(pool, tokens) == (6, truth(tokens))
        pool.sync()
        pool.check()


def test_a_pool_says_what_it_is(pool: Pool, pool_path: Path) -> None:
    """Geometry, codec and path are those it was opened with."""
    assert (pool.geometry, pool.codec, pool.path) == (GEOMETRY, "exact", pool_path)


def test_frames_are_promised_until_none_is_left(pool: Pool) -> None:
    """`can_reserve` and `lease` agree, and a refusal changes nothing."""
    with pool.lease(5 * BLOCK - 1):
        assert pool.stats().promised == 5
        assert pool.can_reserve(3 * BLOCK)
        assert not pool.can_reserve(3 * BLOCK + 1)
        with pytest.raises(PoolExhausted) as refused:
            pool.lease(4 * BLOCK)
        assert (refused.value.needed_frames, refused.value.available_frames) == (4, 3)
        assert pool.stats().promised == 5
    assert pool.stats().available == 8


def test_the_least_recently_used_chain_makes_room(pool: Pool) -> None:
    """P5: what no lease holds is evicted, oldest first, leaf before parent."""
    first, second, third = (count_up(16, start) for start in (0, 100, 200))
    keep(pool, first)
    keep(pool, second)
    assert restore(pool, first)[0] == 16
    keep(pool, third[:8])
    assert pool.stats().evicted_blocks == 2
    assert restore(pool, first) == (16, truth(first))
    assert restore(pool, second) == (8, truth(second[:8]))


def test_a_leased_chain_is_never_evicted(pool: Pool) -> None:
    """P5: another request may take every other frame, not those under the lease."""
    held = count_up(16)
    keep(pool, held)
    with pool.lease(0) as lease:
        assert lease.match(held) == 16
        keep(pool, count_up(16, 200))
        keep(pool, count_up(16, 300))
        assert pool.stats().leased == 4
        pool.check()
    assert restore(pool, held) == (16, truth(held))


def test_chains_survive_a_reopening(pool_path: Path) -> None:
    """What was sealed is found again, bit for bit, after the pool was closed."""
    tokens = count_up(11)
    with open_pool(pool_path) as pool:
        keep(pool, tokens)
        pool.sync()
    with open_pool(pool_path) as pool:
        assert pool.opened.how == "reused"
        assert restore(pool, tokens) == (11, truth(tokens))
        pool.check()


def test_a_closed_pool_says_so(pool_path: Path) -> None:
    """Every use after the close raises, and a second close does nothing."""
    pool = open_pool(pool_path)
    pool.close()
    pool.close()
    for use in (pool.stats, pool.check, pool.sync, lambda: pool.lease(1)):
        with pytest.raises(PoolClosed, match="the pool is closed"):
            use()
    with pytest.raises(PoolClosed):
        pool.can_reserve(1)


def test_a_pool_with_open_leases_does_not_close(pool_path: Path) -> None:
    """`close` refuses while a lease is open, and the lease stays good."""
    pool = open_pool(pool_path)
    lease = pool.lease(4)
    with pytest.raises(PoolInUse) as refused:
        pool.close()
    assert refused.value.leases == 1
    assert lease.tokens == 0
    lease.release()
    pool.close()


def test_a_pool_that_refused_to_close_is_still_collected(pool_path: Path) -> None:
    """A refused close does not take the safety net away."""
    pool = open_pool(pool_path)
    with pool.lease(4), pytest.raises(PoolInUse):
        pool.close()
    del pool
    gc.collect()
    open_pool(pool_path).close()


def test_any_thread_may_use_the_pool(pool: Pool) -> None:
    """Requests on many threads at once find exact data or nothing, and no frame is lost."""

    def serve(seed: int) -> None:
        choose = np.random.default_rng(seed)
        for _ in range(50):
            tokens = count_up(int(choose.integers(1, 9)), 100 * int(choose.integers(3)))
            with suppress(PoolExhausted):
                keep(pool, tokens)
                valid, found = restore(pool, tokens)
                assert found == truth(tokens[:valid])

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(serve, seed) for seed in range(4)]:
            done.result()
    pool.check()
    stats = pool.stats()
    assert (stats.leases, stats.leased, stats.promised) == (0, 0, 0)
    assert stats.miss_checksum + stats.miss_orphan + stats.miss_io == 0


def test_forgotten_handles_are_collected(pool_path: Path) -> None:
    """A pool and a lease that nobody closed give their lock back when they are collected."""
    pool = open_pool(pool_path)
    lease = pool.lease(4)
    del pool
    assert lease.match(count_up(4)) == 0
    del lease
    gc.collect()
    open_pool(pool_path).close()


def test_a_pool_needs_a_size(pool_path: Path) -> None:
    """A size that is not positive, or too small for one frame, is refused before a file is made."""
    for size_bytes in (-1, 0, 1):
        with pytest.raises(ValueError, match=r".+"):
            Pool.open(
                pool_path,
                geometry=GEOMETRY,
                codec="exact",
                fingerprint=FINGERPRINT,
                size_bytes=size_bytes,
            )
    assert not pool_path.exists()


def test_a_fingerprint_has_32_bytes(pool_path: Path) -> None:
    """A fingerprint of another length is refused."""
    with pytest.raises(ValueError, match="32 bytes"):
        Pool.open(
            pool_path, geometry=GEOMETRY, codec="exact", fingerprint=b"short", size_bytes=1 << 20
        )


def test_token_ids_must_be_contiguous_uint32(pool: Pool) -> None:
    """Ids of another type, shape or stride are refused, not reinterpreted."""
    wrong: list[Any] = [np.arange(8), count_up(8)[::2], count_up(8).reshape(2, 4)]
    for tokens in wrong:
        with pool.lease(0) as lease, pytest.raises(ValueError, match="uint32"):
            lease.match(tokens)
