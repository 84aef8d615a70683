"""Resizes a pool and is killed before the k-th call into C, for every k from 1 on.

    resize_and_die.py DIRECTORY        prints how many moments it was killed at

A program of its own, since it forks: each k is one child. Calls into C are what Python's profiler
counts: those of the pool's core and those of `os` alike. After each kill the pool must open at the
size asked for with every block in it, and leave nothing beside it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dovecote_cache import Geometry, LayerShape, Pool, RowPlanes

Side = npt.NDArray[np.float32]

GEOMETRY = Geometry((LayerShape(1, 8, 8),), "float32", 4)
TOKENS = np.arange(22, dtype=np.uint32)
SMALL, LARGE = 1 << 16, 1 << 17


def open_pool(path: Path, size_bytes: int) -> Pool:
    return Pool.open(
        path, geometry=GEOMETRY, codec="exact", fingerprint=bytes(32), size_bytes=size_bytes
    )


def row() -> tuple[list[Side], list[Side]]:
    """K and V whose values tell their position."""
    values = np.arange(24 * 8, dtype=np.float32).reshape(1, 1, 24, 8)
    return [values.copy()], [-values]


def fill(path: Path) -> None:
    keys, values = row()
    with (
        open_pool(path, SMALL) as pool,
        pool.lease(24) as lease,
        RowPlanes(keys, values, 0) as planes,
    ):
        assert lease.seal_short(TOKENS, planes) == len(TOKENS)


def require_everything(path: Path) -> None:
    """Opening finishes the resize, and the chain is there with its values."""
    expected_keys, expected_values = row()
    keys, values = [np.zeros((1, 1, 24, 8), np.float32)], [np.zeros((1, 1, 24, 8), np.float32)]
    with open_pool(path, LARGE) as pool, pool.lease(0) as lease:
        assert lease.match(TOKENS) == len(TOKENS)
        with RowPlanes(keys, values, 0) as planes:
            assert lease.decode(planes, 0, 6) == len(TOKENS)
        pool.check()
        assert pool.opened.how in {"resized", "reused"}
    for found, expected in ((keys, expected_keys), (values, expected_values)):
        assert np.array_equal(found[0][:, :, : len(TOKENS)], expected[0][:, :, : len(TOKENS)])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def die_before_call(k: int) -> None:
    """Kill this process instead of its k-th call into C from now on."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"
        if calls == k:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def resize_and_die(path: Path, k: int) -> bool:
    """Tell whether the child was killed, rather than done before its k-th call."""
    child = os.fork()
    if child == 0:
        die_before_call(k)
        open_pool(path, LARGE).close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def main() -> None:
    directory = Path(sys.argv[1])
    path, k, killed = directory / "crash.pool", 0, True
    while killed:
        k += 1
        path.unlink(missing_ok=True)
        fill(path)
        killed = resize_and_die(path, k)
        require_everything(path)
    print(k - 1)


if __name__ == "__main__":
    main()
