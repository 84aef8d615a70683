"""Files and directories that only their owner may read.

Does not know what is in them. The modes hold whatever the umask is, and are tightened where an
earlier program left them looser.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["private_directory", "private_file", "private_replacement", "write_private"]

_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


def private_directory(path: Path) -> Path:
    """`path`, a directory of mode 0700, made with its parents if need be. Raises: OSError."""
    path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    _tighten(path, _DIRECTORY_MODE)
    return path


def private_file(path: Path) -> Path:
    """`path`, a file of mode 0600, made empty if need be. Raises: OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))
    _tighten(path, _FILE_MODE)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Put `content` at `path` with mode 0600: a reader sees all of the old file or of the new.

    Raises: OSError, and the old file stays.
    """
    with private_replacement(path) as file:
        file.write(content)


@contextmanager
def private_replacement(path: Path) -> Iterator[IO[bytes]]:
    """A file of mode 0600 to write, which takes the place of `path` at the end of the block.

    Until then, and if the block raises, `path` is as it was. Raises: OSError.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file  # mkstemp made it 0600
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(file.name).unlink()
            raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tighten(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)
