from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from dovecote_cache import AgentBook, CacheDirectory, Chain

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    """Directories get mode 0700 whatever the umask is, parents included or not."""
    umask = os.umask(0)
    try:
        directory = CacheDirectory(tmp_path / "deep" / "cache")
    finally:
        os.umask(umask)
    assert [mode(path) for path in (directory.path, directory.pools, directory.models)] == [
        0o700
    ] * 3


def test_a_looser_directory_is_tightened(tmp_path: Path) -> None:
    """A directory that others could read is closed to them."""
    (tmp_path / "pools").mkdir()
    (tmp_path / "pools").chmod(0o755)
    tmp_path.chmod(0o777)
    directory = CacheDirectory(tmp_path)
    assert (mode(directory.path), mode(directory.pools)) == (0o700, 0o700)


def test_a_file_in_the_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    """Nothing is deleted to make room for the directory."""
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(FileExistsError):
        CacheDirectory(tmp_path / "cache")


@pytest.mark.parametrize(
    "name",
    (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "../../etc/passwd",
        "..",
        "",
        "/",
        "a\0b",
        "ü" * 300,
        "x" * 300,
        "-rf",
        "a b\nc",
    ),
)
def test_a_pool_path_stays_in_its_directory(tmp_path: Path, name: str) -> None:
    """Any model name gives a plain file name of its own directory, short and safe to type."""
    directory = CacheDirectory(tmp_path)
    path = directory.pool_path(name, bytes(range(32)))
    assert path.parent == directory.pools
    assert path.name.isascii()
    assert path.name.isprintable()
    assert not path.name.startswith(("-", "."))
    assert len(path.name) <= 100
    path.touch()


def test_a_pool_path_names_the_model_and_the_fingerprint(tmp_path: Path) -> None:
    """A person can tell which model a file belongs to, and two fingerprints have two files."""
    directory = CacheDirectory(tmp_path)
    one, other = (directory.pool_path("org/some-model", bytes([n]) * 32) for n in (1, 2))
    assert one.name == "org-some-model-0101010101010101.pool"
    assert one != other


def test_used_bytes_count_every_file(tmp_path: Path) -> None:
    """P6: foreign files count too, links are not followed."""
    directory = CacheDirectory(tmp_path)
    before = directory.used_bytes()
    (directory.pools / "foreign").write_bytes(b"x" * 1000)
    (directory.models / "deep").mkdir()
    (directory.models / "deep" / "weights").write_bytes(b"x" * 500)
    (directory.models / "link").symlink_to(directory.pools / "foreign")
    assert directory.used_bytes() == before + 1500


def test_the_book_in_it_is_for_its_owner_only(tmp_path: Path) -> None:
    """The agents' file has mode 0600, its logs too."""
    directory = CacheDirectory(tmp_path)
    with AgentBook.open(directory.agents_path) as book:
        book.record("a", "m", Chain(bytes(16), 1), 0.0)
        files = [path for path in tmp_path.iterdir() if path.is_file()]
        assert len(files) == 3
        assert {mode(path) for path in files} == {0o600}
