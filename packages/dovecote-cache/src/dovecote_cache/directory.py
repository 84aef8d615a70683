"""Where everything lies that outlives the process.

<cache directory>/            0700
    pools/                    0700   one file a fingerprint
        NAME.states/          0700   the checkpoints of one, where a model needs them
    models/                   0700   converted models
        .lock                 0600   locked by whoever converts one
        .partial-*            0700   a model being converted, until it is complete
    agents.sqlite3            0600   which agent is at which chain
    digests.json              0600   digests of weight files already read

Nothing in it is for other users' eyes. Does not know what the files hold.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from dovecote_cache.private import private_directory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AGENTS", "DIGESTS", "MODELS_LOCK", "PARTIAL_MODEL", "CacheDirectory"]

AGENTS: Final = "agents.sqlite3"
DIGESTS: Final = "digests.json"
MODELS_LOCK: Final = ".lock"
PARTIAL_MODEL: Final = ".partial-"
_SLUG_CHARACTERS: Final = 64
_FINGERPRINT_DIGITS: Final = 16


class CacheDirectory:
    """The directory at `path`, made if need be and closed to others (0700) even if it was open.

    Raises: OSError if it cannot be made or is someone else's.
    """

    __slots__ = ("models", "path", "pools")

    def __init__(self, path: Path) -> None:
        self.path = private_directory(path)
        self.pools = private_directory(path / "pools")
        self.models = private_directory(path / "models")

    @property
    def agents_path(self) -> Path:
        """Where `AgentBook.open` keeps the agents."""
        return self.path / AGENTS

    @property
    def digests_path(self) -> Path:
        """Where `digest_weights` remembers what it has read."""
        return self.path / DIGESTS

    def pool_path(self, model_name: str, fingerprint: bytes) -> Path:
        """The pool of one fingerprint. The name in it is for people; it can hold anything."""
        digits = fingerprint.hex()[:_FINGERPRINT_DIGITS]
        return self.pools / f"{_slug(model_name)}-{digits}.pool"

    def used_bytes(self) -> int:
        """Bytes of every file below, foreign and forgotten ones too (P6)."""
        return sum(_file_bytes(path) for path in self.path.rglob("*"))


def _file_bytes(path: Path) -> int:
    """0 for what is no file, or went while it was looked at."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


def _slug(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-_SLUG_CHARACTERS:].strip("-.")
    return safe or "model"
