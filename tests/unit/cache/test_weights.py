from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from dovecote_cache import digest_weights

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(name.encode() * 100)
    return sorted(folder.iterdir())


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "digests.json"


def test_the_order_of_the_files_does_not_matter(files: list[Path]) -> None:
    """A directory listing may come in any order."""
    assert digest_weights(files) == digest_weights(files[::-1])


def test_the_directory_does_not_matter(files: list[Path], tmp_path: Path) -> None:
    """A model that was moved keeps its digest."""
    before = digest_weights(files)
    moved = files[0].parent.rename(tmp_path / "elsewhere")
    assert digest_weights(sorted(moved.iterdir())) == before


def test_names_and_contents_matter(files: list[Path]) -> None:
    """Another byte, a renamed file or a missing one is another model."""
    digests = {digest_weights(files), digest_weights(files[:1])}
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"!")
    digests.add(digest_weights(files))
    renamed = files[0].rename(files[0].with_name("c.safetensors"))
    digests.add(digest_weights([renamed, files[1]]))
    assert len(digests) == 4


def test_the_memory_changes_nothing(files: list[Path], memory: Path) -> None:
    """With memory or without, on the first call or the second, the digest is the same."""
    plain = digest_weights(files)
    assert digest_weights(files, memory) == digest_weights(files, memory) == plain


def test_a_known_file_is_not_read_again(files: list[Path], memory: Path) -> None:
    """While path, size, time and inode stay, the remembered digest is used."""
    first = digest_weights(files, memory)
    status = files[0].stat()
    with files[0].open("r+b") as file:
        file.write(b"X")
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_weights(files, memory) == first
    assert digest_weights(files) != first


@pytest.mark.parametrize("change", ("content", "time", "inode"))
def test_a_changed_file_is_read_again(files: list[Path], memory: Path, change: str) -> None:
    """A new size, time or inode makes the remembered digest void."""
    digest_weights(files, memory)
    status = files[0].stat()
    if change == "inode":
        fresh = files[0].with_name("fresh")
        fresh.write_bytes(b"Z" * status.st_size)
        os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
        fresh.replace(files[0])
    else:
        files[0].write_bytes(b"Y" * (status.st_size + (change == "content")))
        os.utime(files[0], ns=(0, status.st_mtime_ns + (change == "time")))
    assert digest_weights(files, memory) == digest_weights(files)


def test_the_memory_does_not_grow_with_changes(files: list[Path], memory: Path) -> None:
    """A file has one entry, the last one."""
    for content in (b"one", b"two, longer"):
        files[0].write_bytes(content)
        digest_weights(files, memory)
    assert len(json.loads(memory.read_bytes())) == len(files)


@pytest.mark.parametrize("content", ("", "{", "[]", '{"/a": 1}', "\udc80"))
def test_a_damaged_memory_only_costs_time(files: list[Path], memory: Path, content: str) -> None:
    """What cannot be understood is forgotten and written anew."""
    memory.write_text(content, errors="surrogateescape")
    assert digest_weights(files, memory) == digest_weights(files)
    assert len(json.loads(memory.read_bytes())) == 2


def test_the_memory_is_for_its_owner_only(files: list[Path], memory: Path) -> None:
    """The memory has mode 0600, and no temporary file stays beside it."""
    digest_weights(files, memory)
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    assert {path.name for path in memory.parent.iterdir()} == {"model", "digests.json"}


def test_a_missing_weight_file_is_an_error(tmp_path: Path) -> None:
    """There is no digest of a file that is not there."""
    with pytest.raises(FileNotFoundError):
        digest_weights([tmp_path / "none.safetensors"])
