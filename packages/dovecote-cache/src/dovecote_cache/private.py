"""Files and directories that only their owner may read.

Does not know what is in them. The modes hold whatever the umask is, and are tightened where an
earlier program left them looser.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

__all__ = ["private_directory", "private_file", "write_private"]

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
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)  # mkstemp made it 0600
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(file.name).unlink()
            raise


def _tighten(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)
