"""The pool through `dovecote_cache`: seal, match, restore, reserve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common import SHAPES, PoolOnDisk, RowOfSlab, copy_bandwidth, token_ids

if TYPE_CHECKING:
    from dovecote_cache import Lease

MIB = 2**20


class OneChain:
    """A pool that holds one chain of `TOKENS` tokens, and a row of that length."""

    SHAPE = SHAPES["SmolLM2-135M"]
    TOKENS = 1888
    codec: Any = "q8"

    def setup(self, *parameters: Any) -> None:
        if parameters:
            self.codec = parameters[0]
        self.row = RowOfSlab(self.SHAPE, self.TOKENS)
        self.disk = PoolOnDisk(self.SHAPE, self.codec, 512 * MIB)
        self.tokens = token_ids(self.TOKENS)
        with self.disk.pool.lease(self.TOKENS) as lease:
            self.seal(lease, self.tokens)

    def teardown(self, *_parameters: Any) -> None:
        self.disk.close()

    def seal(self, lease: Lease, tokens: Any) -> None:
        from dovecote_cache import RowPlanes

        with RowPlanes(self.row.keys, self.row.values, 0) as planes:
            lease.seal(tokens, planes)

    def restore(self) -> int:
        from dovecote_cache import RowPlanes

        with self.disk.pool.lease(self.TOKENS) as lease:
            lease.match(self.tokens)
            with RowPlanes(self.row.keys, self.row.values, 0) as planes:
                return lease.decode(planes, 0, self.TOKENS // 32)


class Restore(OneChain):
    """Match, verify and decode a chain from the page cache into a float32 row."""

    params = (["exact", "q8", "k8v4", "q4"],)
    param_names = ("codec",)

    def time_restore(self, _codec: str) -> None:
        assert self.restore() == self.TOKENS

    def track_share_of_memcpy(self, _codec: str) -> float:
        """Bandwidth of the float32 bytes against a plain copy of as many, in this run."""
        import time

        best = float("inf")
        for _ in range(7):
            started = time.perf_counter()
            self.restore()
            best = min(best, time.perf_counter() - started)
        return self.row.nbytes / best / copy_bandwidth(self.row.nbytes)

    track_share_of_memcpy.unit = "of memcpy"  # type: ignore[attr-defined]


class Seal(OneChain):
    """Encode and write a chain that the pool does not hold."""

    params = (["exact", "q8", "k8v4", "q4"],)
    param_names = ("codec",)
    number = 1
    repeat = 7

    def setup(self, *parameters: Any) -> None:
        super().setup(*parameters)
        self.seed = 1

    def time_seal(self, _codec: str) -> None:
        self.seed += 1
        with self.disk.pool.lease(self.TOKENS) as lease:
            self.seal(lease, token_ids(self.TOKENS, self.seed))


class Match(OneChain):
    """Find a prompt's longest cached prefix."""

    def time_hit(self) -> None:
        with self.disk.pool.lease(self.TOKENS) as lease:
            assert lease.match(self.tokens) == self.TOKENS

    def time_reserve_and_release_32_frames(self) -> None:
        self.disk.pool.lease(32 * 32).release()
