from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from dovecote_cache.private import private_file, write_private

if TYPE_CHECKING:
    from pathlib import Path


def test_a_write_replaces_all_or_nothing(tmp_path: Path) -> None:
    """The file has the whole content and mode 0600, whatever was there before."""
    path = tmp_path / "file"
    path.write_bytes(b"a longer one")
    path.chmod(0o644)
    write_private(path, b"short")
    assert path.read_bytes() == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    """When the name cannot be taken, the temporary file goes too."""
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_private_file_keeps_its_content(tmp_path: Path) -> None:
    """Tightening the mode does not touch what is in the file."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert private_file(path).read_bytes() == b"content"
