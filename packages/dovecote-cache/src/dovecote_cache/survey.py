"""What lies below the cache directory, file by file, and whose it is.

    kind        what it is                                              may be removed
    ------------------------------------------------------------------------------------
    pool        the pool in use                                         no
    states      checkpoints of the pool in use                          no
    leftover    a pool, a model or digests half made, left by a crash;  yes
                checkpoints whose pool is gone
    unreadable  a pool file of another format, or with a damaged header yes
    other_pool  a sound pool of another model, codec or block size, or  yes
                one of its checkpoints
    model       a converted model                                       no
    own         the agents' book, the digests, locks                    no
    foreign     anything Dovecote did not make                          no
    kept        may be removed, but is in use or the system refuses     no

Looks and does not touch: what is in use shows when it is to be removed. Does not know budgets.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from dovecote_cache import _native
from dovecote_cache.checkpoints import is_checkpoint, states_path
from dovecote_cache.directory import AGENTS, DIGESTS, MODELS_LOCK, PARTIAL_MODEL
from dovecote_cache.fingerprint import FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dovecote_cache.directory import CacheDirectory

__all__ = ["FileKind", "StoredFile", "survey"]

FileKind = Literal[
    "pool", "states", "leftover", "unreadable", "other_pool", "model", "own", "foreign", "kept"
]

# Names that `CacheDirectory.pool_path` gives. What has one and cannot be read was a pool once.
_POOL_NAME: Final = re.compile(r".+-[0-9a-f]{16}\.pool")
_HALF_MADE: Final = (".pool.new", ".pool.resizing", ".pool.resizing.new")
# The start of the header: native/src/layout.h.
_MAGIC: Final = b"DOVECOTE"
_HEAD: Final = struct.Struct("<8sIII")
_FILE_BYTES: Final = struct.Struct("<Q")
_HEADER_MAX: Final = 4 * 4096
# Digests are written in a moment, without a lock: what is that old nobody is writing any more.
_ABANDONED_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file, or one directory that goes as a whole. `used` is when it was last written to.

    A sparse file counts with its length, since it can fill up.
    """

    path: Path
    kind: FileKind
    bytes: int
    used: float


def survey(directory: CacheDirectory, pool_path: Path) -> list[StoredFile]:
    """Every regular file below the directory, whoever made it. Links are not followed.

    `pool_path` is the pool in use, there or not.
    """
    found: dict[Path, StoredFile] = {}
    for path, status in _regular_files(directory.path):
        unit = _unit(directory, path)
        kind = "pool" if path == pool_path else _kind(directory, path, status)
        kind = "states" if path.parent == states_path(pool_path) else kind
        before = found.get(unit, StoredFile(unit, kind, 0, 0.0))
        found[unit] = StoredFile(
            unit, kind, before.bytes + status.st_size, max(before.used, status.st_mtime)
        )
    return list(found.values())


def _regular_files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What goes away while it is looked at is left out, and what may not be looked into."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = root.joinpath(folder, name)
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield path, status


def _unit(directory: CacheDirectory, path: Path) -> Path:
    """The half-made model that the file is part of, else the file itself."""
    parts = path.relative_to(directory.path).parts
    if parts[0] == directory.models.name and len(parts) > 2 and parts[1].startswith(PARTIAL_MODEL):
        return directory.models / parts[1]
    return path


def _kind(directory: CacheDirectory, path: Path, status: os.stat_result) -> FileKind:
    parts = path.relative_to(directory.path).parts
    if len(parts) == 1:
        return _kind_of_own_file(parts[0], status.st_mtime)
    if parts[0] == directory.models.name:
        return _kind_of_model_file(parts[1:])
    if parts[0] == directory.pools.name and len(parts) == 2:
        return _kind_of_pool_file(path, status.st_size)
    if parts[0] == directory.pools.name and is_checkpoint(path):
        return "other_pool" if path.parent.with_suffix(".pool").exists() else "leftover"
    return "foreign"


def _kind_of_own_file(name: str, written: float) -> FileKind:
    if name.startswith(f".{DIGESTS}."):
        return "leftover" if time.time() - written > _ABANDONED_S else "own"
    return "own" if name.startswith((AGENTS, DIGESTS)) else "foreign"


def _kind_of_model_file(parts: tuple[str, ...]) -> FileKind:
    if len(parts) == 1:
        return "own" if parts[0] == MODELS_LOCK else "foreign"
    return "leftover" if parts[0].startswith(PARTIAL_MODEL) else "model"


def _kind_of_pool_file(path: Path, size: int) -> FileKind:
    if path.name.endswith(_HALF_MADE):
        return "leftover"
    if path.suffix != ".pool":
        return "foreign"
    header = _read_header(path)
    if _is_sound(header, size):
        return "other_pool"
    was_a_pool = header.startswith(_MAGIC) or _POOL_NAME.fullmatch(path.name) is not None
    return "unreadable" if was_a_pool else "foreign"


def _read_header(path: Path) -> bytes:
    with suppress(OSError), path.open("rb") as file:
        return file.read(_HEADER_MAX)
    return b""


def _is_sound(header: bytes, size: int) -> bool:
    """Whether this version could read the table behind the header."""
    if len(header) < _HEADER_MAX // 4:
        return False
    magic, version, checksum, end = _HEAD.unpack_from(header)
    return (
        (magic, version) == (_MAGIC, FORMAT_VERSION)
        and _FILE_BYTES.unpack_from(header, 48) == (size,)
        and _HEAD.size < end <= len(header)
        and checksum == _native.crc32c(header[16:end])
    )
