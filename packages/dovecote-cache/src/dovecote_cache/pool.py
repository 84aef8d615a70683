"""The pool of frames: what has room, what is held, and the way to a lease.

Does not know how a block is stored (the codec's matter) nor which file was there before (opening).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_cache import _native
from dovecote_cache.chain import ChainStats
from dovecote_cache.errors import PoolClosed
from dovecote_cache.handle import SharedHandle
from dovecote_cache.lease import Lease
from dovecote_cache.opening import PoolOpening, PoolSpec, open_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from dovecote_cache._native import PoolHandle
    from dovecote_cache.chain import Chain
    from dovecote_cache.geometry import CodecName, Geometry

__all__ = ["Pool", "PoolStats", "Verified"]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot, under the names of `dovecote_pool_stats`. Counters start at the pool's opening.

    leased + cached + free = frames (P4); promised <= cached + free; pinned <= leased + cached.
    """

    frames: int
    leased: int
    cached: int
    free: int
    pinned: int
    promised: int
    frame_bytes: int
    file_bytes: int
    held_bytes: int
    leases: int
    tokens: int
    matched_tokens: int
    decoded_tokens: int
    sealed_blocks: int
    shared_blocks: int
    evicted_blocks: int
    superseded_blocks: int
    bytes_written: int
    bytes_read: int
    miss_checksum: int
    miss_orphan: int
    miss_io: int
    write_errors: int

    @property
    def available(self) -> int:
        """Frames that a new lease can still be promised."""
        return self.cached + self.free - self.promised


@dataclass(frozen=True, slots=True)
class Verified:
    """What `Pool.verify` found: frames whose payload was read, those of them that were damaged.

    `next_frame` is where the next slice begins; it is `Pool.frames` after the last one.
    """

    checked: int
    damaged: int
    next_frame: int


class Pool:
    """Equal frames in one file, locked against other processes. Any thread may use it.

    Every method but `close` and `wait_closed` raises PoolClosed once the pool is closed.
    """

    __slots__ = ("_frame_bytes", "_frames", "_handle", "_opened", "_path", "_spec")

    def __init__(
        self, handle: PoolHandle, spec: PoolSpec, path: Path | None, opened: PoolOpening
    ) -> None:
        """Use `Pool.open`."""
        stats = PoolStats(**_native.pool_stats(handle))
        self._handle = SharedHandle(handle, PoolClosed)
        self._spec = spec
        self._path = path
        self._opened = opened
        self._frames = stats.frames
        self._frame_bytes = stats.frame_bytes

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        geometry: Geometry,
        codec: CodecName,
        fingerprint: bytes,
        size_bytes: int,
    ) -> Self:
        """Open the pool at `path`, or make it (mode 0600, all its bytes allocated at once).

        `path` None keeps the pool in memory. A pool of another size keeps the chains that fit. A
        file that is unreadable or was made for something else is deleted and replaced. `opened`
        says which of these it was.
        Raises: ValueError, MemoryError, PoolBusy, PoolIOError; a sound pool is then unchanged.
        """
        if size_bytes <= 0:
            raise ValueError(f"a pool needs a size, not {size_bytes} bytes")
        spec = PoolSpec(geometry, codec, fingerprint)
        if path is None:
            handle = _native.open_pool(spec, None, size_bytes)
            return cls(handle, spec, None, PoolOpening("created"))
        handle, opened = open_file(spec, path, size_bytes)
        return cls(handle, spec, path, opened)

    def use_threads(self, threads: int) -> None:
        """Let one decode use so many threads, the caller's included; at most 16, 1 unless told.

        To be called before the first lease.
        """
        with self._handle.borrowed() as pool:
            _native.use_threads(pool, threads)

    def can_reserve(self, tokens: int) -> bool:
        """Whether a lease of `tokens` tokens would be granted at this moment."""
        return self._spec.geometry.blocks(tokens) <= self.stats().available

    def lease(self, tokens: int) -> Lease:
        """Promise the frames that `tokens` tokens may fill, and hand out the lease.

        Raises: PoolExhausted if fewer can be promised, and nothing is reserved; MemoryError.
        """
        geometry = self._spec.geometry
        with self._handle.borrowed() as pool:
            handle = _native.open_lease(pool, geometry.blocks(tokens))
            return Lease(pool, handle, geometry, self._frame_bytes)

    def look(self, chain: Chain, shared_blocks: int = 0) -> ChainStats:
        """What is cached of the chain. Its first `shared_blocks` count as somebody else's too.

        Does not count as use. Raises: ValueError if the keys and tokens do not fit each other.
        """
        with self._handle.borrowed() as pool:
            return ChainStats(**_native.look_at_chain(pool, chain, shared_blocks))

    def look_all(self, chains: Sequence[Chain]) -> list[ChainStats]:
        """As `look` at each of the chains, in order, as if nothing of them were somebody else's.

        Raises: ValueError.
        """
        with self._handle.borrowed() as pool:
            return [ChainStats(*found) for found in _native.look_at_chains(pool, chains)]

    def drop(self, chain: Chain, shared_blocks: int = 0) -> int:
        """Free the chain's own blocks; their number.

        Blocks among the first `shared_blocks`, those on which another chain hangs and those under a
        lease stay. Raises: ValueError.
        """
        with self._handle.borrowed() as pool:
            return _native.drop_chain(pool, chain, shared_blocks)

    def pin(self, chains: Sequence[Chain], limit_frames: int) -> int:
        """Have these chains, and no others, evicted last; the frames that would have taken.

        What goes beyond the limit is left as it is: the last chains' ends. Pins last until the
        next call or `close`. Raises: ValueError.
        """
        with self._handle.borrowed() as pool:
            return _native.pin_chains(pool, chains, limit_frames)

    def stats(self) -> PoolStats:
        """What the pool holds now, and what it did since it was opened."""
        with self._handle.borrowed() as pool:
            return PoolStats(**_native.pool_stats(pool))

    def check(self) -> None:
        """Verify the invariants of the index, without reading payload. Raises: PoolBroken."""
        with self._handle.borrowed() as pool:
            _native.check_pool(pool, self._path)

    def verify(self, first_frame: int, frames: int) -> Verified:
        """Read the sealed frames among [first_frame, first_frame + frames), check their payload.

        A damaged or unreadable one is freed with all that hangs on it, and counted in `stats` as a
        miss (P1). Takes no lease and does not count as use: requests go on meanwhile, so call it
        on a thread of its own, in slices that take as long as a `close` may wait (a frame is
        `frame_bytes` of the disk). Short blocks that are in memory only are left out. To go
        through a pool, begin at 0 and go on at `next_frame` until it is `Pool.frames`.
        Raises: ValueError if first_frame is negative or past `Pool.frames`; MemoryError.
        """
        with self._handle.borrowed() as pool:
            return Verified(*_native.verify_pool(pool, first_frame, frames))

    def flush(self) -> None:
        """Write what only memory knows: short blocks, recency. A kill then costs nothing.

        Does not wait for the disk. Raises: PoolIOError, and what was not written stays in memory.
        """
        with self._handle.borrowed() as pool:
            _native.flush_pool(pool, self._path)

    def held_mark(self) -> int:
        """A point in the order in which short blocks came into memory, for `flush_held`: now."""
        with self._handle.borrowed() as pool:
            return _native.held_mark(pool)

    def flush_held(self, mark: int, limit: int) -> int:
        """Write at most `limit` of the short blocks in memory since before `mark`, oldest first.

        Those that a lease has pinned stay: the lease is about to replace them. Returns how many
        others remain. Does not wait for the disk. Raises: PoolIOError.
        """
        with self._handle.borrowed() as pool:
            return _native.flush_held(pool, self._path, mark, limit)

    def sync(self) -> None:
        """Flush, and wait until everything is on disk. Raises: PoolIOError."""
        with self._handle.borrowed() as pool:
            _native.sync_pool(pool, self._path)

    def close(self) -> None:
        """Close the file and free the index, after calls on other threads have returned.

        A second close does nothing. Raises: PoolInUse if leases are open; the pool stays open.
        """
        self._handle.close(_native.close_pool)

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until another thread closes the pool, or for so long; whether it is closed."""
        return self._handle.wait_closed(timeout_s)

    @property
    def geometry(self) -> Geometry:
        """The shape of the K and V that the pool keeps."""
        return self._spec.geometry

    @property
    def codec(self) -> CodecName:
        """How the pool stores K and V."""
        return self._spec.codec

    @property
    def fingerprint(self) -> bytes:
        """What the pool was made for (P8)."""
        return self._spec.fingerprint

    @property
    def path(self) -> Path | None:
        """The pool file, None if the pool is in memory."""
        return self._path

    @property
    def opened(self) -> PoolOpening:
        """What `open` found and did."""
        return self._opened

    @property
    def frames(self) -> int:
        """Frames in the pool: the blocks that it can hold."""
        return self._frames

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in the file."""
        return self._frame_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
