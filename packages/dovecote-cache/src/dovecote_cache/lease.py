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

import numpy as np

from dovecote_cache import _native
from dovecote_cache.chain import KEY_BYTES, Chain
from dovecote_cache.errors import LeaseClosed

if TYPE_CHECKING:
    from typing import Self

    import numpy.typing as npt

    from dovecote_cache._native import LeaseHandle, PoolHandle
    from dovecote_cache.geometry import Geometry
    from dovecote_cache.planes import RowPlanes

__all__ = ["Lease"]

_ROOT_BYTES = 16


def root_of(salt: bytes) -> bytes:
    """What chains under that salt hang on, 16 bytes; zeros for the empty one."""
    return blake2b(salt, digest_size=_ROOT_BYTES).digest() if salt else bytes(_ROOT_BYTES)


class Lease:
    """Made by `Pool.lease`. One thread at a time; released by `release` or the end of `with`."""

    __slots__ = ("_frame_bytes", "_geometry", "_handle", "_pool")

    def __init__(
        self, pool: PoolHandle, handle: LeaseHandle, geometry: Geometry, frame_bytes: int
    ) -> None:
        self._pool = pool
        self._handle: LeaseHandle | None = handle
        self._geometry = geometry
        self._frame_bytes = frame_bytes

    def match(self, tokens: npt.NDArray[np.uint32], salt: bytes = b"") -> int:
        """Pin the longest cached prefix of `tokens` [T] and return its length, to the token.

        At most once, before anything is sealed. Chains under different salts never share; the
        empty salt is the common one. Raises: ValueError, LeaseClosed.
        """
        return _native.match_lease(self._open, root_of(salt) if salt else None, tokens)

    def prefetch(self) -> None:
        """Ask the operating system to read the pinned frames ahead; return at once."""
        _native.prefetch_lease(self._open)

    def decode(self, planes: RowPlanes, start_block: int, end_block: int) -> int:
        """Write the matched blocks [start_block, end_block) of all layers into their positions.

        Of windowed layers only the blocks from `resume_block` on, each layer as far as its own
        window reaches: nobody will attend to what is before.
        Returns the tokens that the lease still covers: fewer than before if a block turned out to
        be damaged, which drops it and all after it; positions from there on are of no use, and
        windowed layers are to be decoded again from what is then the `resume_block`.
        Raises: ValueError if the planes have another geometry or too little capacity, and nothing
        was written; LeaseClosed.
        """
        tokens, size = self.tokens, self._geometry.block_tokens
        for first, last, window in self._geometry.runs:
            start = max(start_block, self._first_block(window))
            for begin, end in planes.laps(start * size, max(start, end_block) * size):
                array = planes.writable(self._geometry, begin, (first, last))
                blocks = (begin // size, end // size)
                valid = _native.decode_lease(self._open, blocks, (first, last), array)
                if valid < tokens:
                    return valid
        return tokens

    @property
    def resume_block(self) -> int:
        """The first block that a windowed layer needs of the matched ones; their number if no layer
        has a window. It moves when a damaged block ends the chain sooner.
        """
        blocks = self._geometry.blocks(self.tokens)
        windows = {window for _, _, window in self._geometry.runs if window}
        return min([blocks, *map(self._first_block, windows)])

    def _first_block(self, window: int) -> int:
        """The first matched block that a layer of that window needs.

        The next token attends to the last `window - 1` positions; the tail is sealed once more.
        """
        if not window:
            return 0
        return max(0, min(self.tokens - window + 1, self.whole_tokens)) // (
            self._geometry.block_tokens
        )

    def seal(self, tokens: npt.NDArray[np.uint32], planes: RowPlanes) -> int:
        """Keep the whole blocks of `tokens`, the ids from position `whole_tokens` on.

        `planes` hold their K and V at their positions in the row, and are not modified. A block
        that the pool already has is shared, not written. Returns the tokens of the chain, without
        a tail: where the next ids start.
        Raises: PoolExhausted if the promise is used up; PoolIOError if writing failed, or another
        lease found this chain damaged; ValueError, LeaseClosed. What was sealed before stays.
        """
        first, sealed = self.whole_tokens, 0
        for start, end in planes.laps(first, first + len(tokens)):
            array = planes.readable(self._geometry, start)
            piece = tokens[start - first : end - first]
            sealed = _native.seal_lease(self._open, self._pool, piece, array)
        return sealed

    def seal_short(self, tokens: npt.NDArray[np.uint32], planes: RowPlanes) -> int:
        """As `seal`, and keep the rest as a short block. The chain ends: nothing more is sealed."""
        first = self.whole_tokens
        *laps, (start, _) = planes.laps(first, first + len(tokens))
        if laps:
            self.seal(tokens[: start - first], planes)
        array = planes.readable(self._geometry, start)
        return _native.seal_lease_short(self._open, self._pool, tokens[start - first :], array)

    def begin_under(self, root: bytes) -> None:
        """Instead of `match`: seal under that `root`, without looking for what is there.

        Raises: ValueError, LeaseClosed.
        """
        if len(root) != _ROOT_BYTES:
            raise ValueError(f"a root has {_ROOT_BYTES} bytes, not {len(root)}")
        _native.match_lease(self._open, root, np.zeros(0, np.uint32))

    def hold(self, chain: Chain) -> int:
        """Instead of `match`: pin what is cached of a noted chain, to `read` it; its tokens.

        A last block that goes on beyond the chain's tokens is left out: the rest is another's.
        Raises: PoolExhausted if other leases need the room, and nothing is pinned; ValueError,
        LeaseClosed.
        """
        return _native.hold_lease(self._open, self._pool, chain)

    def read(self, block: int) -> tuple[npt.NDArray[np.uint32], bytes]:
        """The ids [T] of a pinned block and its K and V as they are stored, verified.

        Raises: PoolIOError if it is damaged (errno 0) or cannot be read; ValueError, LeaseClosed.
        """
        sizes = (self._geometry.block_tokens, self._frame_bytes)
        return _native.read_lease(self._open, self._pool, block, sizes)

    def write(self, tokens: npt.NDArray[np.uint32], payload: bytes) -> None:
        """Seal one block, the next of the chain, with what `read` gave in a pool of this kind.

        Raises: PoolExhausted, PoolIOError; ValueError if `payload` has not a frame's length or
        the chain has ended; LeaseClosed.
        """
        if len(payload) != self._frame_bytes:
            raise ValueError(f"a frame has {self._frame_bytes} bytes, not {len(payload)}")
        _native.write_lease(self._open, self._pool, tokens, payload)

    @property
    def root(self) -> bytes:
        """What the chain hangs on, 16 bytes made from the salt; zeros without one."""
        return _native.lease_root(self._open)

    @property
    def chain(self) -> Chain:
        """The chain, without a tail, to be noted: it names the same blocks after the lease."""
        keys, tokens = _native.lease_keys(self._open), self.tokens
        whole_tokens = len(keys) // KEY_BYTES * self._geometry.block_tokens
        return Chain(keys, min(tokens, whole_tokens))

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

        Keys are those of one pool file, and stay when it is resized.
        """
        return _native.lease_tip(self._open)

    def release(self) -> None:
        """Unpin the chain and give unused frames back. A second release does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _native.close_lease(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()

    @property
    def _open(self) -> LeaseHandle:
        if self._handle is None:
            raise LeaseClosed
        return self._handle
