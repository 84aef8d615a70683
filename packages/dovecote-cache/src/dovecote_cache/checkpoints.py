"""Checkpoints: what a model keeps beside K and V, as it was after the last token of some block.

    NAME.pool       the pool
    NAME.states/    its checkpoints, each under the key of the block that it follows; in memory
                    where the pool is (state_files.py)

A key says where to look. What is found counts only if checksum and digest agree: a collision, a
torn file or one of another shape is a miss, is counted, and goes (P1, P2, P7 of the pool). The
digest is BLAKE2b, keyed with the fingerprint, of the state's layout and of all token ids before it:
it knows no pool, so that a state may move to another one with its chain.

Bounded twice: `limit_bytes` of all, the longest unused going first, and CHAIN_LIMIT along one
chain, of which the first and the last are spared. Does not know what a state is made of.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from hashlib import blake2b
from threading import Condition
from typing import TYPE_CHECKING, Final

from dovecote_cache.chain import KEY_BYTES
from dovecote_cache.state_files import HEAD_BYTES, SUFFIX, Record, StateFiles, StateMemory

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from dovecote_cache.chain import Chain
    from dovecote_cache.pool import Pool

__all__ = ["CHAIN_LIMIT", "POOL_SHARE", "Checkpoints", "is_checkpoint", "states_path"]

CHAIN_LIMIT: Final = 4
"""How many checkpoints one chain keeps: turns resume at its last ones, others' at its first."""
POOL_SHARE: Final = 3
"""Checkpoints may take a third of what the pool takes, so a quarter of both."""
_DIRECTORY_SUFFIX: Final = ".states"
_DIGEST_BYTES: Final = 32


class Checkpoints:
    """The checkpoints of one pool. Any thread.

    `layout` describes a state of the model to the bit, `state_bytes` says how large one is.
    """

    def __init__(
        self,
        path: Path | None,
        fingerprint: bytes,
        limit_bytes: int,
        layout: bytes = b"",
        state_bytes: int = 0,
    ) -> None:
        """Those at `path`, a directory made if need be; in memory without one. Raises: OSError."""
        self._guard = Condition()
        self._store = StateMemory() if path is None else StateFiles(path, self._guard)
        self._fingerprint = fingerprint
        self._limit_bytes = limit_bytes
        self._layout = layout
        self.state_bytes = state_bytes
        self._sizes = OrderedDict(self._store.survey())
        self._errors: list[OSError] = []
        self.bytes = sum(self._sizes.values())
        self.missed = 0
        with self._guard:
            self._make_room(0)

    @classmethod
    def beside(cls, pool: Pool, layout: bytes = b"", state_bytes: int = 0) -> Self:
        """Those of the pool, within their share. A pool made anew has new keys, so they are gone.

        Raises: OSError.
        """
        path = None if pool.path is None else states_path(pool.path)
        limit_bytes = pool.frames * pool.frame_bytes // POOL_SHARE
        found = cls(path, pool.fingerprint, limit_bytes, layout, state_bytes)
        if pool.opened.how in ("created", "replaced"):
            found.clear()
        return found

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def can_hold(self, state_bytes: int) -> bool:
        """Whether there is room for a state of that size at all."""
        return HEAD_BYTES + state_bytes <= self._limit_bytes

    def longest(self, chain: Chain, blocks: int) -> int:
        """The most of the chain's first `blocks` blocks after which there is one."""
        with self._guard:
            self._forget_failed()
            for end in range(min(blocks, chain.blocks), 0, -1):
                if _key(chain, end) in self._sizes:
                    return end
        return 0

    def ends(self, chain: Chain, blocks: int) -> list[int]:
        """After how many of the chain's first `blocks` blocks there is one, ascending."""
        with self._guard:
            self._forget_failed()
            numbers = range(1, min(blocks, chain.blocks) + 1)
            return [end for end in numbers if _key(chain, end) in self._sizes]

    def get(self, chain: Chain, blocks: int, ids: bytes) -> bytes | None:
        """The state after so many blocks, whose token ids these are; None, and it is gone, if it is
        not sound, or of other tokens or another layout.
        """
        key = _key(chain, blocks)
        with self._guard:
            self._forget_failed()
            if key not in self._sizes:
                return None
        record = self._store.get(key)
        with self._guard:
            if key not in self._sizes:
                return None  # it made room for another one meanwhile
            if record is None or record.digest != self.digest(ids):
                self.missed += 1
                self._drop(key)
                return None
            self._touch(key)
        return record.state

    def put(self, chain: Chain, blocks: int, ids: bytes, *pieces: bytes | memoryview) -> bool:
        """Keep the state after so many blocks of the chain; whether it is there now.

        Its pieces are held, and must not change, until a thread of its own has written them: see
        `take_errors`. One that is there stays. Where there is no room at all it is not kept.
        Raises: OSError if too much waits to be written already; those before stay.
        """
        record = Record(self.digest(ids), pieces)
        with self._guard:
            self._forget_failed()
            if not self._store.has_room(record.size_bytes):
                raise OSError(errno.ENOBUFS, "states wait for the disk already")
            return self._add(chain, _key(chain, blocks), record)

    def bring(self, chain: Chain, blocks: int, ids: bytes, state: bytes) -> bool:
        """As `put`, and waits as long as too much waits to be written. Not on the engine thread."""
        record = Record(self.digest(ids), (state,))
        with self._guard:
            self._guard.wait_for(lambda: self._store.has_room(record.size_bytes))
            self._forget_failed()
            return self._add(chain, _key(chain, blocks), record)

    def digest(self, ids: bytes) -> bytes:
        """32 bytes that stand for a state after those token ids: equal wherever its model is."""
        content = self._layout + ids
        return blake2b(content, digest_size=_DIGEST_BYTES, key=self._fingerprint).digest()

    def take_errors(self) -> list[OSError]:
        """Why states that were put could not be written, since the last call. They are gone."""
        with self._guard:
            self._forget_failed()
            errors, self._errors = self._errors, []
            return errors

    def clear(self) -> None:
        """Drop all of them."""
        with self._guard:
            for key in [*self._sizes]:
                self._drop(key)

    def flush(self) -> None:
        """Waits until all of them are on disk, and no others."""
        self._store.flush()

    def close(self) -> None:
        """Waits until all of them are on disk. Nothing is put or dropped afterwards."""
        self._store.close()

    # ---- private: under the guard

    def _add(self, chain: Chain, key: bytes, record: Record) -> bool:
        if key in self._sizes:
            self._touch(key)
            return True
        if record.size_bytes > self._limit_bytes:
            return False
        self._thin_out(chain)
        self._make_room(record.size_bytes)
        self._store.put(key, record)
        self._sizes[key] = record.size_bytes
        self.bytes += record.size_bytes
        return True

    def _thin_out(self, chain: Chain) -> None:
        """Room for one more along the chain: of those between its first and its last, the longest
        unused goes.
        """
        keys = [_key(chain, end) for end in range(1, chain.blocks + 1)]
        held = [key for key in keys if key in self._sizes]
        if len(held) < CHAIN_LIMIT:
            return
        between = set(held[1:-1])
        self._drop(next(key for key in self._sizes if key in between))

    def _make_room(self, size: int) -> None:
        while self._sizes and self.bytes + size > self._limit_bytes:
            self._drop(next(iter(self._sizes)))

    def _touch(self, key: bytes) -> None:
        self._sizes.move_to_end(key)
        self._store.touch(key)

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._sizes.pop(key)
        self._store.drop(key)

    def _forget_failed(self) -> None:
        """What could not be written is not offered any more."""
        for key, error in self._store.take_failures():
            self._errors.append(error)
            self.bytes -= self._sizes.pop(key, 0)


def states_path(pool_path: Path) -> Path:
    """Where the checkpoints of the pool at that path lie."""
    return pool_path.with_suffix(_DIRECTORY_SUFFIX)


def is_checkpoint(path: Path) -> bool:
    """Whether the file at that path is one of some pool's, or was to become one."""
    is_inside = path.parent.suffix == _DIRECTORY_SUFFIX
    return is_inside and SUFFIX in path.suffixes


def _key(chain: Chain, blocks: int) -> bytes:
    return chain.keys[(blocks - 1) * KEY_BYTES : blocks * KEY_BYTES]
