"""One digest for a model's weight files, without reading gigabytes at every start.

A file's digest is remembered under its path, size, modification time and inode. The memory is a
small JSON file of its own; damaged or missing, it only costs a read of the weights.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import file_digest, sha256
from typing import TYPE_CHECKING

from dovecote_cache.private import write_private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["digest_weights"]


def digest_weights(paths: Sequence[Path], memory: Path | None = None) -> bytes:
    """32 bytes that change with the name or the content of any file, not with order or directory.

    `memory` is where the files' digests are remembered (mode 0600); None reads every file.
    Raises: OSError if a file cannot be read, or the memory not written.
    """
    known = {} if memory is None else _recall(memory)
    found = {path: _digest(path, known.get(str(path.resolve()), "")) for path in paths}
    learned = known | {str(path.resolve()): entry for path, entry in found.items()}
    if memory is not None and learned != known:
        write_private(memory, json.dumps(learned).encode())
    lines = sorted(f"{path.name}\0{_content(entry)}\n" for path, entry in found.items())
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).digest()


def _digest(path: Path, known: str) -> str:
    """The file's entry, "size:mtime_ns:inode:digest"; `known` itself if it still holds.

    Size, time and inode are those from before the reading: a file that was written to meanwhile
    does not have them any longer, and is read again the next time.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        identity = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
        if known.startswith(f"{identity}:"):
            return known
        return f"{identity}:{file_digest(file, 'sha256').hexdigest()}"


def _content(entry: str) -> str:
    return entry.rpartition(":")[2]


def _recall(memory: Path) -> dict[str, str]:
    """Entries by path; none if the memory is missing or damaged."""
    with suppress(FileNotFoundError, ValueError):
        known = json.loads(memory.read_bytes())
        if isinstance(known, dict) and all(isinstance(entry, str) for entry in known.values()):
            return known
    return {}
