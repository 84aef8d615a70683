"""Where checkpoints are kept: files of one directory that a thread of its own writes, or memory.

    NAME.states/                 0700
        <key in hex>.state       0600   one checkpoint
        <key in hex>.state.new   0600   one being written, until it is complete

    OFFSET  SIZE  MEANING
    0       8     "DVSTATE1"
    8       4     CRC-32C of all that follows, little-endian
    12      32    digest of what the state is of
    44      n     the state

    put --> held in memory --> its file is whole --> read from there
                |                  A kill up to here loses it: a miss
                `--> the disk refuses: `failures`

A file is written beside its place and renamed, so that a kill leaves a whole one there, or none. It
is not waited for: a power cut may leave a torn one, which is a miss. The thread does in order what
it is given, so that what goes makes room before what comes takes it. Does not know chains.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dovecote_cache import _native
from dovecote_cache.chain import KEY_BYTES
from dovecote_cache.private import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from threading import Condition

__all__ = ["BACKLOG_BYTES", "HEAD_BYTES", "Record", "StateFiles", "StateMemory"]

BACKLOG_BYTES: Final = 256 << 20
"""What may wait in memory for the disk; one state waits whatever its size."""
SUFFIX: Final = ".state"
_HALF_MADE: Final = ".new"
_MAGIC: Final = b"DVSTATE1"
_SUM_BYTES: Final = 4
_DIGEST_BYTES: Final = 32
HEAD_BYTES: Final = len(_MAGIC) + _SUM_BYTES + _DIGEST_BYTES


@dataclass(frozen=True, slots=True)
class Record:
    """A state, in pieces that do not change, and the digest (32 bytes) of what it is of."""

    digest: bytes
    pieces: tuple[bytes | memoryview, ...]

    @property
    def state(self) -> bytes:
        """The pieces in one."""
        return b"".join(self.pieces)

    @property
    def checksum(self) -> int:
        """CRC-32C of digest and state."""
        checksum = _native.crc32c(self.digest)
        for piece in self.pieces:
            checksum = _native.crc32c(piece, checksum)
        return checksum

    @property
    def size_bytes(self) -> int:
        """What it takes as a file."""
        return HEAD_BYTES + sum(memoryview(piece).nbytes for piece in self.pieces)


class StateMemory:
    """Records that end with the process: the interface of `StateFiles`."""

    def __init__(self) -> None:
        self._held: dict[bytes, Record] = {}

    def survey(self) -> list[tuple[bytes, int]]:
        """Nothing is there yet."""
        return []

    def has_room(self, size_bytes: int) -> bool:  # noqa: ARG002 - the shape of `StateFiles`
        """Nothing waits for a disk."""
        return True

    def put(self, key: bytes, record: Record) -> None:
        """Keeps a copy: a piece may be the visible part of much larger memory."""
        self._held[key] = Record(record.digest, (record.state,))

    def touch(self, key: bytes) -> None:
        """The order of use ends with the process, too."""

    def drop(self, key: bytes) -> None:
        """Forgets it."""
        self._held.pop(key, None)

    def get(self, key: bytes) -> Record | None:
        """The record; None if it is gone."""
        return self._held.get(key)

    def take_failures(self) -> list[tuple[bytes, OSError]]:
        """Nothing fails."""
        return []

    def flush(self) -> None:
        """Nothing is to be written."""

    def close(self) -> None:
        """Nothing is to be written."""


class StateFiles:
    """Records by key in files of a directory.

    Any thread: under `guard`, which whoever calls has to hold, but for `get`, `flush` and
    `close`, which take their time. It is notified when something that waited is written, or is not.
    """

    def __init__(self, path: Path, guard: Condition) -> None:
        """Those at `path`, a directory made if need be. Raises: OSError."""
        self._path = private_directory(path)
        self._guard = guard
        self._held: dict[bytes, Record] = {}
        self._held_bytes = 0
        self._gone: set[bytes] = set()
        self._failures: list[tuple[bytes, OSError]] = []
        self._writer = ThreadPoolExecutor(1, "dovecote-states")

    def survey(self) -> list[tuple[bytes, int]]:
        """Keys and sizes of what is there, the longest unused first; removes what a crash left."""
        return [(key, size) for _, key, size in sorted(self._files())]

    def has_room(self, size_bytes: int) -> bool:
        """Whether a record of that size may wait for the disk now."""
        return not self._held or self._held_bytes + size_bytes <= BACKLOG_BYTES

    def put(self, key: bytes, record: Record) -> None:
        """Holds the record until its file is written."""
        self._held[key] = record
        self._held_bytes += record.size_bytes
        self._gone.discard(key)
        self._writer.submit(self._settle, key)

    def touch(self, key: bytes) -> None:
        """Notes a use of it, for the next `survey`."""
        self._writer.submit(self._note_use, key)

    def drop(self, key: bytes) -> None:
        """Forgets it; its file goes soon."""
        self._let_go(key)
        self._gone.add(key)
        self._writer.submit(self._settle, key)

    def get(self, key: bytes) -> Record | None:
        """The record, from memory or its file; None if that is gone or not sound. Unguarded."""
        with self._guard:
            held = self._held.get(key)
        if held is not None:
            return held
        try:
            with self._file(key).open("rb") as file:
                head, state = file.read(HEAD_BYTES), file.read()
        except OSError:
            return None
        record = Record(head[len(_MAGIC) + _SUM_BYTES :], (state,))
        return record if head == _head(record) else None

    def take_failures(self) -> list[tuple[bytes, OSError]]:
        """What could not be written since the last call, and why."""
        failures, self._failures = self._failures, []
        return failures

    def flush(self) -> None:
        """Waits until what was put is written and what was dropped is gone. Unguarded."""
        self._writer.submit(bool).result()

    def close(self) -> None:
        """Waits until everything is written. Unguarded; afterwards only `get` works."""
        self._writer.shutdown()

    def _files(self) -> Iterator[tuple[int, bytes, int]]:
        for file in self._path.iterdir():
            if file.name.endswith(SUFFIX + _HALF_MADE):
                file.unlink(missing_ok=True)
            elif (key := _key_of(file)) is not None:
                with suppress(FileNotFoundError):
                    status = file.stat()
                    yield status.st_mtime_ns, key, status.st_size

    def _let_go(self, key: bytes) -> None:
        record = self._held.pop(key, None)
        if record is not None:
            self._held_bytes -= record.size_bytes
            self._guard.notify_all()

    # ---- the writer's thread

    def _settle(self, key: bytes) -> None:
        """Makes the file what it has to be by now: what was dropped meanwhile is not written."""
        with self._guard:
            record, is_gone = self._held.get(key), key in self._gone
            self._gone.discard(key)
        if record is not None:
            self._written(key, record, self._write(key, record))
        elif is_gone:
            with suppress(OSError):
                self._file(key).unlink()

    def _written(self, key: bytes, record: Record, error: OSError | None) -> None:
        with self._guard:
            if self._held.get(key) is record:
                self._let_go(key)
                if error is not None:
                    self._failures.append((key, error))

    def _write(self, key: bytes, record: Record) -> OSError | None:
        file = self._file(key)
        half_made = file.with_name(file.name + _HALF_MADE)
        try:
            with open(half_made, "wb", opener=_private) as target:
                target.write(_head(record))
                target.writelines(record.pieces)
            half_made.replace(file)
        except OSError as error:
            with suppress(OSError):
                half_made.unlink(missing_ok=True)
            return error
        return None

    def _note_use(self, key: bytes) -> None:
        with suppress(OSError):
            os.utime(self._file(key))

    def _file(self, key: bytes) -> Path:
        return self._path / f"{key.hex()}{SUFFIX}"


def _head(record: Record) -> bytes:
    return _MAGIC + record.checksum.to_bytes(_SUM_BYTES, "little") + record.digest


def _key_of(file: Path) -> bytes | None:
    """The key that the file's name says; None if it is somebody else's."""
    with suppress(ValueError):
        key = bytes.fromhex(file.stem)
        if file.suffix == SUFFIX and len(key) == KEY_BYTES:
            return key
    return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
