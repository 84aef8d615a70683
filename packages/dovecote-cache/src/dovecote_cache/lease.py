"""A pinned chain and a promise of frames, held by one running request.

    position   0                          whole_tokens     tokens
    matched    |-- whole blocks, pinned ------|-- tail ------|     part of a block that goes another
               |                              |                    way; held until the first seal
    sealed     |-- matched --|-- sealed here -|-- short -----|     of seal_short: ends the chain

`match` finds a prefix, `decode` puts it into a slab row, `seal` adds the blocks that follow; the
tail's tokens are sealed again, in a block of the chain's own. Does not know where the slab is, nor
who the agent is.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from dovecote_cache import _native
from dovecote_cache.errors import LeaseClosed

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import numpy as np
    import numpy.typing as npt

    from dovecote_cache._native import LeaseHandle, PoolHandle
    from dovecote_cache.geometry import Geometry
    from dovecote_cache.planes import RowPlanes

__all__ = ["Lease"]

_ROOT_BYTES = 16


class Lease:
    """Made by `Pool.lease`. One thread at a time; released by `release` or the end of `with`."""

    __slots__ = ("_geometry", "_handle", "_pool")

    def __init__(self, pool: PoolHandle, handle: LeaseHandle, geometry: Geometry) -> None:
        self._pool = pool
        self._handle: LeaseHandle | None = handle
        self._geometry = geometry

    def match(self, tokens: npt.NDArray[np.uint32], salt: bytes = b"") -> int:
        """Pin the longest cached prefix of `tokens` [T] and return its length, to the token.

        At most once, before anything is sealed. Chains under different salts never share; the
        empty salt is the common one. Raises: ValueError, LeaseClosed.
        """
        root = blake2b(salt, digest_size=_ROOT_BYTES).digest() if salt else None
        return _native.match_lease(self._open, root, tokens)

    def prefetch(self) -> None:
        """Ask the operating system to read the pinned frames ahead; return at once."""
        _native.prefetch_lease(self._open)

    def decode(self, planes: RowPlanes, start_block: int, end_block: int) -> int:
        """Write the matched blocks [start_block, end_block) of all layers into their positions.

        Returns the tokens that the lease still covers: fewer than before if a block turned out to
        be damaged, which drops it and all after it; positions from there on are of no use.
        Raises: ValueError if the planes have another geometry or too little capacity, and nothing
        was written; LeaseClosed.
        """
        array = planes.writable(self._geometry)
        layers = (0, len(self._geometry.layers))
        return _native.decode_lease(self._open, (start_block, end_block), layers, array)

    def seal(self, tokens: npt.NDArray[np.uint32], planes: RowPlanes) -> int:
        """Keep the whole blocks of `tokens`, the ids from position `whole_tokens` on.

        `planes` hold their K and V at their positions in the row, and are not modified. A block
        that the pool already has is shared, not written. Returns the tokens of the chain, without
        a tail: where the next ids start.
        Raises: PoolExhausted if the promise is used up; PoolIOError if writing failed, or another
        lease found this chain damaged; ValueError, LeaseClosed. What was sealed before stays.
        """
        array = planes.readable(self._geometry)
        return _native.seal_lease(self._open, self._pool, tokens, array)

    def seal_short(self, tokens: npt.NDArray[np.uint32], planes: RowPlanes) -> int:
        """As `seal`, and keep the rest as a short block. The chain ends: nothing more is sealed."""
        array = planes.readable(self._geometry)
        return _native.seal_lease_short(self._open, self._pool, tokens, array)

    @property
    def tokens(self) -> int:
        """Tokens that the lease covers: those of the chain, and of the tail while it is held."""
        return _native.lease_tokens(self._open)

    @property
    def whole_tokens(self) -> int:
        """Tokens in whole blocks: the position of the first id that `seal` wants."""
        tokens = self.tokens
        return tokens - tokens % self._geometry.block_tokens

    @property
    def tip(self) -> bytes:
        """Key of the chain's last block, 16 bytes; all zero while the chain is empty.

        Keys are those of one pool file: a resized pool has others.
        """
        return _native.lease_tip(self._open)

    def release(self) -> None:
        """Unpin the chain and give unused frames back. A second release does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _native.close_lease(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def _open(self) -> LeaseHandle:
        if self._handle is None:
            raise LeaseClosed
        return self._handle
