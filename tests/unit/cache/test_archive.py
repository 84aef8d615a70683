"""Archives: one agent's blocks in a file, and in another pool again."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from slabs import FINGERPRINT, GEOMETRY, Slab, count_up, keep, open_pool, restore, size_of, truth

from dovecote_cache import (
    Archive,
    ArchiveMismatch,
    ArchiveUnusable,
    Chain,
    Manifest,
    Pool,
    PoolExhausted,
    Stores,
    write_archive,
)

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = Manifest("a/../b ü", "tiny", 12.5, pinned=True, ttl_s=60.0)
TOKENS = count_up(10)


def go_on() -> None:
    """Nothing asks for an early end."""


@pytest.fixture
def chain(pool: Pool) -> Chain:
    slab = Slab(rows=1)
    slab.compute(TOKENS)
    with pool.lease(10) as lease, slab.planes() as planes:
        lease.seal_short(TOKENS, planes)
        return lease.chain


@pytest.fixture
def path(pool: Pool, chain: Chain, tmp_path: Path) -> Path:
    path = tmp_path / "agent.archive"
    assert write_archive(path, Stores(pool), chain, MANIFEST, go_on) == 10
    return path


def import_into(pool: Pool, path: Path) -> Chain:
    with Archive(path) as archive:
        archive.verify(Stores(pool), go_on)
        with pool.lease(archive.tokens) as lease:
            return archive.copy_into(lease, go_on)


def test_an_archive_brings_the_chain_into_another_pool(path: Path, chain: Chain) -> None:
    """Bytes and tokens are the same; keys are the other pool's own."""
    with open_pool(None) as other:
        imported = import_into(other, path)
        assert restore(other, TOKENS) == (10, truth(TOKENS))
        assert imported.tokens == 10
        assert imported.keys != chain.keys
        assert other.look(imported).tokens == 10
        other.check()


def test_a_salted_chain_stays_under_its_salt(pool: Pool, tmp_path: Path) -> None:
    """What one tenant exported, no other finds after the import."""
    slab = Slab(rows=1)
    slab.compute(TOKENS)
    with pool.lease(10) as lease, slab.planes() as planes:
        lease.match(TOKENS, b"mine")
        lease.seal_short(TOKENS, planes)
        salted = lease.chain
    write_archive(tmp_path / "salted", Stores(pool), salted, MANIFEST, go_on)
    with open_pool(None) as other:
        import_into(other, tmp_path / "salted")
        assert restore(other, TOKENS)[0] == 0
        assert restore(other, TOKENS, b"mine") == (10, truth(TOKENS))


def test_an_import_shares_what_is_there_already(path: Path, pool: Pool, chain: Chain) -> None:
    before = pool.stats()
    assert import_into(pool, path) == chain
    assert (pool.stats().cached, pool.stats().free) == (before.cached, before.free)


def test_an_archive_tells_who_it_is_without_keys_and_text(path: Path, chain: Chain) -> None:
    """The manifest comes back as given, the file is private, and no key of the pool is in it."""
    with Archive(path) as archive:
        assert archive.manifest == MANIFEST
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert chain.keys[:16] not in path.read_bytes()


def test_every_flipped_byte_is_found(path: Path, tmp_path: Path) -> None:
    """Wherever it is, the import raises before anything is in the pool."""
    content = path.read_bytes()
    damaged = tmp_path / "damaged"
    with open_pool(None) as other:
        for at in [*range(600), *range(600, len(content), 97), len(content) - 1]:
            flipped = bytearray(content)
            flipped[at] ^= 0x40
            damaged.write_bytes(flipped)
            with pytest.raises((ArchiveUnusable, ArchiveMismatch)):
                import_into(other, damaged)
        assert other.stats().free == other.frames


@pytest.mark.parametrize("kept", (0, 7, 127, 128, 200, 1000, -1))
def test_a_cut_archive_is_found(path: Path, tmp_path: Path, kept: int) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:kept])
    with open_pool(None) as other:
        with pytest.raises(ArchiveUnusable):
            import_into(other, cut)
        assert other.stats().free == other.frames


def test_what_follows_the_archive_is_found(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArchiveUnusable, match="cut off or grown"):
        Archive(path)


def test_another_model_s_archive_is_refused(path: Path) -> None:
    """P8: the fingerprint decides, and the pool stays as it was."""
    with (
        Pool.open(
            None,
            geometry=GEOMETRY,
            codec="exact",
            fingerprint=FINGERPRINT[::-1],
            size_bytes=size_of(8),
        ) as other,
        pytest.raises(ArchiveMismatch),
    ):
        import_into(other, path)


def test_an_archive_holds_what_is_still_cached(pool: Pool, chain: Chain, tmp_path: Path) -> None:
    keep(pool, count_up(24, start=500))
    path = tmp_path / "rest"
    assert write_archive(path, Stores(pool), chain, MANIFEST, go_on) == 8
    with open_pool(None) as other:
        assert import_into(other, path).tokens == 8


def test_an_import_needs_room(path: Path) -> None:
    with open_pool(None, frames=2) as other, pytest.raises(PoolExhausted):
        import_into(other, path)


def test_an_early_end_leaves_no_file(pool: Pool, chain: Chain, tmp_path: Path) -> None:
    """Whatever interrupts an export, the path is as it was and no lease is left."""

    def stop() -> None:
        raise InterruptedError

    before = sorted(tmp_path.iterdir())
    with pytest.raises(InterruptedError):
        write_archive(tmp_path / "agent", Stores(pool), chain, MANIFEST, stop)
    assert sorted(tmp_path.iterdir()) == before
    assert pool.stats().leases == 0
