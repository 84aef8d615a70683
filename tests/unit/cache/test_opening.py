from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from slabs import (
    FINGERPRINT,
    GEOMETRY,
    count_up,
    keep,
    open_pool,
    restore,
    size_of,
    truth,
)

from dovecote_cache import CodecName, Geometry, LayerShape, Pool, PoolBusy, PoolIOError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_other(
    path: Path,
    geometry: Geometry = GEOMETRY,
    codec: CodecName = "exact",
    fingerprint: bytes = FINGERPRINT,
) -> Pool:
    return Pool.open(
        path, geometry=geometry, codec=codec, fingerprint=fingerprint, size_bytes=1 << 16
    )


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to make a file larger than that, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_missing_file_is_created_and_then_reused(pool_path: Path) -> None:
    """The first opening makes the file, the second finds it."""
    for how in ("created", "reused"):
        with open_pool(pool_path) as pool:
            assert pool.opened.how == how


@pytest.mark.parametrize("frames", (5, 20))
def test_a_resized_pool_keeps_its_chains(pool_path: Path, frames: int) -> None:
    """Another size takes over the chains that fit, and the new size is the file's."""
    tokens = count_up(18)
    with open_pool(pool_path, frames=8) as pool:
        keep(pool, tokens)
    with open_pool(pool_path, frames=frames) as pool:
        assert pool.opened.how == "resized"
        assert (pool.opened.kept_blocks, pool.opened.lost_blocks) == (5, 0)
        assert pool.frames == frames
        assert restore(pool, tokens) == (18, truth(tokens))
        pool.check()
    assert [path.name for path in pool_path.parent.iterdir()] == [pool_path.name]
    assert pool_path.stat().st_size <= size_of(frames)


def test_a_smaller_pool_keeps_what_was_used_last(pool_path: Path) -> None:
    """When not all blocks fit, the most recently used chain stays, from its first token on."""
    old, recent = count_up(12), count_up(12, 500)
    with open_pool(pool_path, frames=8) as pool:
        keep(pool, old)
        keep(pool, recent)
    with open_pool(pool_path, frames=4) as pool:
        assert (pool.opened.kept_blocks, pool.opened.lost_blocks) == (4, 2)
        assert restore(pool, recent) == (12, truth(recent))
        assert restore(pool, old)[0] <= 4
        pool.check()


@pytest.mark.parametrize("frames", (5, 20))
def test_a_resized_pool_keeps_its_keys(pool_path: Path, frames: int) -> None:
    """What somebody noted of a chain names the same chain afterwards, under every salt."""
    tokens, tips = count_up(18), []
    for size in (8, frames):
        with open_pool(pool_path, frames=size) as pool:
            for salt in (b"", b"tenant"):
                keep(pool, tokens[:6], salt)
                with pool.lease(0) as lease:
                    assert lease.match(tokens[:4], salt) == 4
                    tips.append(lease.tip)
    assert tips[:2] == tips[2:]
    assert tips[0] != tips[1]


def test_a_resized_pool_is_open_under_its_own_name(pool_path: Path) -> None:
    """The resized file is locked and survives another opening."""
    open_pool(pool_path, frames=4).close()
    with open_pool(pool_path, frames=8) as pool:
        keep(pool, count_up(8))
        with pytest.raises(PoolBusy):
            open_pool(pool_path, frames=8)
    with open_pool(pool_path, frames=8) as pool:
        assert pool.opened.how == "reused"
        assert restore(pool, count_up(8))[0] == 8


def test_a_resize_that_crashed_leaves_nothing_behind(pool_path: Path) -> None:
    """Files of an interrupted resize are removed by the next opening, whatever is in them."""
    with open_pool(pool_path, frames=4) as pool:
        keep(pool, count_up(4))
    for frames in (4, 8):
        for suffix in (".new", ".resizing", ".resizing.new"):
            pool_path.with_name(pool_path.name + suffix).write_bytes(b"half a pool")
        with open_pool(pool_path, frames=frames) as pool:
            assert restore(pool, count_up(4))[0] == 4
        assert list(pool_path.parent.iterdir()) == [pool_path]


def test_a_resize_that_fails_leaves_the_pool_as_it_was(pool_path: Path) -> None:
    """Without room for the larger file it raises, and the smaller one is as good as before."""
    with open_pool(pool_path, frames=8) as pool:
        keep(pool, count_up(8))
    with files_limited_to(size_of(8)), pytest.raises(PoolIOError) as failed:
        open_pool(pool_path, frames=20)
    assert failed.value.errno == errno.EFBIG
    with open_pool(pool_path, frames=8) as pool:
        assert pool.opened.how == "reused"
        assert restore(pool, count_up(8))[0] == 8
    assert [path.name for path in pool_path.parent.iterdir()] == [pool_path.name]


@pytest.mark.parametrize(
    "difference",
    (
        {"fingerprint": bytes(32)},
        {"codec": "f16"},
        {"geometry": Geometry(GEOMETRY.layers, "float16", 4)},
        {"geometry": Geometry(GEOMETRY.layers, "float32", 8)},
        {"geometry": Geometry((LayerShape(2, 8, 8), LayerShape(1, 12, 4)), "float32", 4)},
    ),
    ids=["fingerprint", "codec", "dtype", "block", "dims"],
)
def test_a_pool_made_for_something_else_is_replaced(
    pool_path: Path, difference: dict[str, object]
) -> None:
    """P8: a pool opens only for what it was made with; the file makes room for a blank one."""
    with open_other(pool_path) as pool:
        keep(pool, count_up(8))
    with open_other(pool_path, **difference) as pool:  # type: ignore[arg-type]
        assert pool.opened.how == "replaced"
        assert "another fingerprint, geometry, codec" in pool.opened.reason
        assert pool.stats().cached == 0
    with open_other(pool_path, **difference) as pool:  # type: ignore[arg-type]
        assert pool.opened.how == "reused"


@pytest.mark.parametrize("content", (b"", b"short", b"\0" * 8192, b"not a pool" * 1000))
def test_a_file_that_is_no_pool_is_replaced(pool_path: Path, content: bytes) -> None:
    """Foreign bytes under the pool's name cost the cache, not the start."""
    pool_path.write_bytes(content)
    with open_pool(pool_path) as pool:
        assert pool.opened.how == "replaced"
        assert "not a pool" in pool.opened.reason
        keep(pool, count_up(8))
    with open_pool(pool_path) as pool:
        assert restore(pool, count_up(8))[0] == 8


def test_an_open_pool_is_busy_in_the_same_process(pool: Pool, pool_path: Path) -> None:
    """A second opening is refused, at the same size and at another."""
    for frames in (8, 4):
        with pytest.raises(PoolBusy) as refused:
            open_pool(pool_path, frames=frames)
        assert refused.value.path == pool_path
    keep(pool, count_up(4))


def test_an_open_pool_is_busy_for_another_process(pool: Pool, pool_path: Path) -> None:
    """Two servers cannot have one pool."""
    program = (
        "import sys, pathlib\n"
        "from dovecote_cache import *\n"
        "geometry = Geometry((LayerShape(2, 8, 8), LayerShape(1, 4, 12)), 'float32', 4)\n"
        "try:\n"
        "    Pool.open(pathlib.Path(sys.argv[1]), geometry=geometry, codec='exact',\n"
        "              fingerprint=bytes(range(32)), size_bytes=int(sys.argv[2]))\n"
        "except PoolBusy:\n"
        "    print('busy')\n"
    )
    size = str(size_of(8))
    done = subprocess.run(
        [sys.executable, "-c", program, str(pool_path), size],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "busy\n"
    keep(pool, count_up(4))


def test_an_unusable_file_that_is_locked_is_left_alone(pool_path: Path) -> None:
    """Of two that want to replace the same file, the one without its lock gives way."""
    pool_path.write_bytes(b"not a pool" * 1000)
    descriptor = os.open(pool_path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(PoolBusy):
            open_pool(pool_path)
    finally:
        os.close(descriptor)
    assert pool_path.read_bytes().startswith(b"not a pool")


def test_a_directory_that_is_not_there_is_an_io_error(tmp_path: Path) -> None:
    """A failed system call carries errno, its text and the path."""
    path = tmp_path / "missing" / "a.pool"
    with pytest.raises(PoolIOError, match="No such file or directory") as failed:
        open_pool(path)
    assert (failed.value.errno, failed.value.path) == (errno.ENOENT, path)


def test_a_pipe_in_the_place_of_the_file_is_an_io_error(pool_path: Path) -> None:
    """What is no plain file was not put there by a pool, and stays."""
    os.mkfifo(pool_path)
    with pytest.raises(PoolIOError):
        open_pool(pool_path)
    assert pool_path.is_fifo()


def test_a_directory_in_the_place_of_the_file_is_an_io_error(pool_path: Path) -> None:
    """Only files are replaced."""
    pool_path.mkdir()
    with pytest.raises(PoolIOError):
        open_pool(pool_path)
    assert pool_path.is_dir()
