"""Checkpoints: what a model keeps beside K and V, as it was after the last token of some block.

    NAME.pool                    the pool
    NAME.states/                 0700   its checkpoints; in memory where the pool is
        <key in hex>.state       0600   one, under the key of the block that it follows
        <key in hex>.state.new   0600   one being written, until it is complete

    OFFSET  SIZE  MEANING
    0       8     "DVSTATE1"
    8       4     CRC-32C of all that follows, little-endian
    12      32    BLAKE2b, keyed with the fingerprint, of what the state is of: ids and shapes
    44      n     the state

A key says where to look. What is found counts only if checksum and digest agree: a collision, a
torn file or one of another shape is a miss, is counted, and goes (P1, P2, P7 of the pool). A file
is written whole beside its place and renamed, so that a kill leaves a whole one there, or none.

Bounded twice: `limit_bytes` of all, the longest unused going first, and CHAIN_LIMIT along one
chain, of which the first and the last are spared. Does not know what a state is made of.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from dovecote_cache import _native
from dovecote_cache.chain import KEY_BYTES
from dovecote_cache.private import private_directory

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
_SUFFIX: Final = ".state"
_HALF_MADE: Final = ".new"
_MAGIC: Final = b"DVSTATE1"
_DIGEST_BYTES: Final = 32
_HEAD_BYTES: Final = len(_MAGIC) + 4 + _DIGEST_BYTES


class Checkpoints:
    """The checkpoints of one pool. Engine thread only, but for `longest` and the numbers."""

    def __init__(self, path: Path | None, fingerprint: bytes, limit_bytes: int) -> None:
        """Those at `path`, a directory made if need be; in memory without one. Raises: OSError."""
        self._path = path if path is None else private_directory(path)
        self._fingerprint = fingerprint
        self._limit_bytes = limit_bytes
        self._memory: dict[bytes, bytes] = {}
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self.bytes = 0
        self.missed = 0
        if self._path is not None:
            self._survey(self._path)
            self._make_room(0)

    @classmethod
    def beside(cls, pool: Pool) -> Self:
        """Those of the pool, within their share. A pool made anew has new keys, so they are gone.

        Raises: OSError.
        """
        path = None if pool.path is None else states_path(pool.path)
        found = cls(path, pool.fingerprint, pool.frames * pool.frame_bytes // POOL_SHARE)
        if pool.opened.how in ("created", "replaced"):
            found.clear()
        return found

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def can_hold(self, state_bytes: int) -> bool:
        """Whether there is room for a state of that size at all."""
        return _HEAD_BYTES + state_bytes <= self._limit_bytes

    def longest(self, chain: Chain, blocks: int) -> int:
        """The most of the chain's first `blocks` blocks after which there is one. Any thread."""
        for end in range(min(blocks, chain.blocks), 0, -1):
            if _key(chain, end) in self._sizes:
                return end
        return 0

    def get(self, chain: Chain, blocks: int, subject: bytes) -> bytes | None:
        """The state after so many blocks; None, and it is gone, if it is not sound or of another
        subject.
        """
        key = _key(chain, blocks)
        if key not in self._sizes:
            return None
        record = self._read(key)
        if record is None or not self._is_sound(record, subject):
            self.missed += 1
            self._drop(key)
            return None
        self._touch(key)
        return record[_HEAD_BYTES:]

    def put(self, chain: Chain, blocks: int, subject: bytes, state: bytes) -> bool:
        """Keep the state after so many blocks of the chain; whether it is there now.

        `subject` is what it is of, to the bit. One that is there stays. Where there is no room at
        all it is not kept. Raises: OSError if it cannot be written; those before stay.
        """
        key = _key(chain, blocks)
        if key in self._sizes:
            self._touch(key)
            return True
        if not self.can_hold(len(state)):
            return False
        size = _HEAD_BYTES + len(state)
        self._thin_out(chain)
        self._make_room(size)
        self._write(key, self._sealed(subject, state))
        self._sizes[key] = size
        self.bytes += size
        return True

    def clear(self) -> None:
        """Drop all of them."""
        for key in [*self._sizes]:
            self._drop(key)

    def _survey(self, path: Path) -> None:
        """Takes note of what is there, the longest unused first; removes what a crash left."""
        found = []
        for file in path.iterdir():
            if file.name.endswith(_SUFFIX + _HALF_MADE):
                file.unlink(missing_ok=True)
            elif (key := _key_of(file)) is not None:
                with suppress(FileNotFoundError):
                    status = file.stat()
                    found.append((status.st_mtime_ns, key, status.st_size))
        for _, key, size in sorted(found):
            self._sizes[key] = size
            self.bytes += size

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
        if self._path is not None:
            with suppress(OSError):
                os.utime(self._file(key))

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._sizes.pop(key)
        self._memory.pop(key, None)
        if self._path is not None:
            with suppress(OSError):
                self._file(key).unlink()

    def _read(self, key: bytes) -> bytes | None:
        if self._path is None:
            return self._memory.get(key)
        try:
            return self._file(key).read_bytes()
        except OSError:
            return None

    def _write(self, key: bytes, record: bytes) -> None:
        """Not waited for: a power cut may leave a torn file, which is a miss."""
        if self._path is None:
            self._memory[key] = record
            return
        file = self._file(key)
        half_made = file.with_name(file.name + _HALF_MADE)
        try:
            with open(half_made, "wb", opener=_private) as target:
                target.write(record)
            half_made.replace(file)
        except OSError:
            with suppress(OSError):
                half_made.unlink(missing_ok=True)
            raise

    def _file(self, key: bytes) -> Path:
        assert self._path is not None  # noqa: S101 - in memory nobody asks
        return self._path / f"{key.hex()}{_SUFFIX}"

    def _sealed(self, subject: bytes, state: bytes) -> bytes:
        content = self._digest(subject) + state
        return _MAGIC + _native.crc32c(content).to_bytes(4, "little") + content

    def _is_sound(self, record: bytes, subject: bytes) -> bool:
        start = len(_MAGIC) + 4
        return (
            record[: len(_MAGIC)] == _MAGIC
            and record[start:_HEAD_BYTES] == self._digest(subject)
            and int.from_bytes(record[len(_MAGIC) : start], "little")
            == _native.crc32c(record[start:])
        )

    def _digest(self, subject: bytes) -> bytes:
        return blake2b(subject, digest_size=_DIGEST_BYTES, key=self._fingerprint).digest()


def states_path(pool_path: Path) -> Path:
    """Where the checkpoints of the pool at that path lie."""
    return pool_path.with_suffix(_DIRECTORY_SUFFIX)


def is_checkpoint(path: Path) -> bool:
    """Whether the file at that path is one of some pool's, or was to become one."""
    is_inside = path.parent.suffix == _DIRECTORY_SUFFIX
    return is_inside and _SUFFIX in path.suffixes


def _key(chain: Chain, blocks: int) -> bytes:
    return chain.keys[(blocks - 1) * KEY_BYTES : blocks * KEY_BYTES]


def _key_of(file: Path) -> bytes | None:
    """The key that the file's name says; None if it is somebody else's."""
    with suppress(ValueError):
        key = bytes.fromhex(file.stem)
        if file.suffix == _SUFFIX and len(key) == KEY_BYTES:
            return key
    return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
