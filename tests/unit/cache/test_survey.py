from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from slabs import count_up, keep, open_pool

from dovecote_cache import AgentBook, CacheDirectory, digest_weights
from dovecote_cache.survey import FileKind, survey

if TYPE_CHECKING:
    from pathlib import Path

MINE, THEIRS = "mine-0000000000000000", "other-1111111111111111"
IN_USE, OTHER = f"{MINE}.pool", f"{THEIRS}.pool"


@pytest.fixture
def directory(tmp_path: Path) -> CacheDirectory:
    return CacheDirectory(tmp_path / "cache")


def kinds(directory: CacheDirectory) -> dict[str, FileKind]:
    """What each file is taken for, by its path in the directory."""
    files = survey(directory, directory.pools / IN_USE)
    return {str(file.path.relative_to(directory.path)): file.kind for file in files}


@pytest.mark.parametrize(
    ("place", "content", "kind"),
    (
        (f"pools/{IN_USE}", b"whatever", "pool"),
        (f"pools/{IN_USE}.new", b"", "leftover"),
        (f"pools/{OTHER}.new", b"half", "leftover"),
        (f"pools/{OTHER}.resizing", b"half", "leftover"),
        (f"pools/{OTHER}.resizing.new", b"half", "leftover"),
        (f"pools/{OTHER}", b"not a pool", "unreadable"),
        (f"pools/{OTHER}", b"", "unreadable"),
        ("pools/any.pool", b"DOVECOTE" + bytes(5000), "unreadable"),
        ("pools/any.pool", b"swimming", "foreign"),
        (f"pools/{MINE}.states/00.state", b"state", "states"),
        (f"pools/{MINE}.states/00.state.new", b"half", "states"),
        (f"pools/{THEIRS}.states/00.state", b"state", "leftover"),
        (f"pools/{THEIRS}.states/00.state.new", b"half", "leftover"),
        (f"pools/{THEIRS}.states/notes.txt", b"mine", "foreign"),
        ("pools/notes.txt", b"mine", "foreign"),
        ("pools/deeper/x-1111111111111111.pool", b"", "foreign"),
        ("models/a/model.safetensors", b"weights", "model"),
        ("models/.lock", b"", "own"),
        ("models/loose", b"", "foreign"),
        ("agents.sqlite3.damaged", b"", "own"),
        (".digests.json.x3", b"", "own"),
        ("thesis.tex", b"", "foreign"),
    ),
)
def test_every_file_has_a_kind(
    directory: CacheDirectory, place: str, content: bytes, kind: FileKind
) -> None:
    """The table of kinds, by example."""
    path = directory.path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert kinds(directory) == {place: kind}


def test_checkpoints_belong_to_their_pool(directory: CacheDirectory) -> None:
    """While the pool is there they are as removable as it is."""
    open_pool(directory.pools / OTHER).close()
    states = directory.pools / f"{THEIRS}.states"
    states.mkdir()
    (states / "00.state").write_bytes(b"state")
    assert set(kinds(directory).values()) == {"other_pool"}


def test_digests_that_nobody_writes_any_more_are_a_leftover(directory: CacheDirectory) -> None:
    """A kill between writing and renaming leaves them; whoever writes now is done in a moment."""
    path = directory.path / ".digests.json.x3"
    path.write_bytes(b"{")
    now = path.stat().st_mtime
    for age_s, kind in ((60, "own"), (7200, "leftover")):
        os.utime(path, (now - age_s, now - age_s))
        assert kinds(directory) == {".digests.json.x3": kind}


def test_what_dovecote_writes_is_its_own(directory: CacheDirectory, tmp_path: Path) -> None:
    """The book with its logs and the digests are known."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    digest_weights([weights], directory.digests_path)
    with AgentBook.open(directory.agents_path):
        found = kinds(directory)
    assert len(found) == 4
    assert set(found.values()) == {"own"}


def test_a_sound_pool_is_told_from_a_damaged_one(directory: CacheDirectory) -> None:
    """Any flipped byte of the header, another version or a cut makes a pool unreadable."""
    path = directory.pools / OTHER
    with open_pool(path) as pool:
        keep(pool, count_up(8))
    sound = path.read_bytes()
    assert kinds(directory) == {f"pools/{OTHER}": "other_pool"}
    (end,) = struct.unpack_from("<I", sound, 16)
    for damaged in (
        sound[:-1],
        sound[: end - 1],
        sound[:20] + b"\xff" + sound[21:],
        sound[: end - 1] + b"\xff" + sound[end:],
        sound[:8] + b"\x02" + sound[9:],
        sound[:16] + struct.pack("<I", 1 << 31) + sound[20:],
    ):
        path.write_bytes(damaged)
        assert kinds(directory) == {f"pools/{OTHER}": "unreadable"}


def test_a_half_made_model_is_one_leftover(directory: CacheDirectory) -> None:
    """It goes as a whole, so it counts as one."""
    folder = directory.models / ".partial-x"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"12345")
    (folder / "deep" / "b").write_bytes(b"678")
    (file,) = survey(directory, directory.pools / IN_USE)
    assert (file.path, file.kind, file.bytes) == (folder, "leftover", 8)


def test_links_are_not_followed(directory: CacheDirectory, tmp_path: Path) -> None:
    """What lies elsewhere takes nothing of this directory's budget."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"x" * 1000)
    (directory.path / "folder").symlink_to(outside)
    (directory.models / "link").symlink_to(outside / "file")
    assert survey(directory, directory.pools / IN_USE) == []
