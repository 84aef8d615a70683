"""A bad cache file is a miss plus a counter, never a crash and never wrong data (P1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from slabs import Slab, count_up, keep, open_pool, restore, truth

from dovecote_cache import Verified

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = count_up(11)


@pytest.fixture
def sealed_path(pool_path: Path) -> Path:
    """A closed pool that holds two whole blocks and a short one."""
    with open_pool(pool_path) as pool:
        keep(pool, TOKENS)
        pool.sync()
    return pool_path


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def second_block_key(path: Path) -> bytes:
    with open_pool(path) as pool, pool.lease(0) as lease:
        assert lease.match(TOKENS[:8]) == 8
        return lease.tip


def test_a_damaged_header_costs_the_pool(sealed_path: Path) -> None:
    """A header that fails its checksum makes the file no pool: it is replaced."""
    flip(sealed_path, 9)
    with open_pool(sealed_path) as pool:
        assert pool.opened.how == "replaced"
        assert restore(pool, TOKENS)[0] == 0


def test_a_damaged_record_costs_its_block_and_what_hangs_on_it(sealed_path: Path) -> None:
    """The frame of a record that fails its checksum is freed and counted, its child orphaned."""
    key = second_block_key(sealed_path)
    flip(sealed_path, sealed_path.read_bytes().index(key) + 3)
    with open_pool(sealed_path) as pool:
        assert restore(pool, TOKENS) == (4, truth(TOKENS[:4]))
        stats = pool.stats()
        assert (stats.miss_checksum, stats.miss_orphan) == (1, 1)
        assert stats.cached == 1
        pool.check()


@pytest.mark.parametrize("what", ("ids", "keys"))
def test_damaged_payload_is_a_miss_when_it_is_decoded(sealed_path: Path, what: str) -> None:
    """A payload that fails its checksum ends the lease before it; its frame is freed."""
    slab = Slab(rows=1)
    slab.compute(TOKENS)
    needle = TOKENS[4:8].tobytes() if what == "ids" else slab.keys[0][0, 0, 4].tobytes()
    content = sealed_path.read_bytes()
    assert content.count(needle) == 1
    flip(sealed_path, content.index(needle) + 2)
    with open_pool(sealed_path) as pool:
        assert restore(pool, TOKENS) == (4, truth(TOKENS[:4]))
        assert pool.stats().miss_checksum == 1
        assert restore(pool, TOKENS)[0] == 4
        pool.check()


def test_a_miss_can_be_sealed_again(sealed_path: Path) -> None:
    """A request that loses its chain half way computes the rest and heals the pool."""
    slab = Slab()
    slab.compute(TOKENS)
    needle = slab.values[1][0, 0, 5].tobytes()
    flip(sealed_path, sealed_path.read_bytes().index(needle))
    with open_pool(sealed_path) as pool:
        with pool.lease(len(TOKENS)) as lease, slab.planes(1) as planes:
            assert lease.match(TOKENS) == 11
            assert lease.decode(planes, 0, 3) == lease.tokens == 4
            slab.compute(TOKENS, row=1)
            assert lease.seal_short(TOKENS[4:], planes) == 11
        assert restore(pool, TOKENS) == (11, truth(TOKENS))
        pool.check()


def test_no_flipped_byte_gives_wrong_data(sealed_path: Path) -> None:
    """Wherever a byte is flipped, what the pool still hands out is exact."""
    content = sealed_path.read_bytes()
    for offset in range(0, len(content), 61):
        sealed_path.write_bytes(content)
        flip(sealed_path, offset)
        with open_pool(sealed_path) as pool:
            valid, found = restore(pool, TOKENS)
            assert found == truth(TOKENS[:valid]), offset
            pool.check()


@pytest.mark.parametrize("kept", (0, 1, 100, 4096, -1))
def test_a_truncated_file_is_replaced(sealed_path: Path, kept: int) -> None:
    """A file shorter than its header says is no pool."""
    sealed_path.write_bytes(sealed_path.read_bytes()[:kept])
    with open_pool(sealed_path) as pool:
        assert pool.opened.how == "replaced"
        pool.check()


def damage_payload_of_second_block(path: Path) -> None:
    slab = Slab()
    slab.compute(TOKENS)
    flip(path, path.read_bytes().index(slab.values[1][0, 0, 5].tobytes()))


def test_a_verification_finds_damage_before_a_request_does(sealed_path: Path) -> None:
    """`verify` frees the damaged frame and what hangs on it, and counts both."""
    damage_payload_of_second_block(sealed_path)
    with open_pool(sealed_path) as pool:
        checked = damaged = start = 0
        while start < pool.frames:
            done = pool.verify(start, 3)
            checked, damaged = checked + done.checked, damaged + done.damaged
            start = done.next_frame
        assert (checked, damaged) == (2, 1)
        stats = pool.stats()
        assert (stats.miss_checksum, stats.miss_orphan, stats.cached) == (1, 1, 1)
        assert restore(pool, TOKENS) == (4, truth(TOKENS[:4]))
        assert pool.verify(0, pool.frames) == Verified(1, 0, pool.frames)
        pool.check()


def test_a_verification_of_frames_that_are_not_there_is_refused(sealed_path: Path) -> None:
    """A slice may end past the pool, but not begin there."""
    with open_pool(sealed_path) as pool:
        assert pool.verify(pool.frames, 1) == Verified(0, 0, pool.frames)
        assert pool.verify(1, 2**40).next_frame == pool.frames
        for start, count in ((-1, 1), (pool.frames + 1, 1), (2**40, 1), (0, -1)):
            with pytest.raises(ValueError):  # noqa: PT011 - two layers refuse, in words of their own
                pool.verify(start, count)
