"""Archives of models with recurrent state: the checkpoints along the chain travel with it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from slabs import FINGERPRINT, Slab, count_up, open_pool, restore, truth

from dovecote_cache import (
    CHAIN_LIMIT,
    Archive,
    ArchiveMismatch,
    ArchiveUnusable,
    Chain,
    Checkpoints,
    Manifest,
    Pool,
    Stores,
    _native,
    write_archive,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANIFEST = Manifest("ada", "tiny", 12.5)
TOKENS = count_up(10)
BLOCK = 4
STATE_BYTES = 50
RECORD_BYTES = 40 + STATE_BYTES
STATES = {1: b"1" * STATE_BYTES, 2: b"2" * STATE_BYTES}


def go_on() -> None:
    """Nothing asks for an early end."""


def kept(layout: bytes = b"f32", state_bytes: int = STATE_BYTES) -> Checkpoints:
    return Checkpoints(None, FINGERPRINT, 1 << 20, layout, state_bytes)


def ids(blocks: int) -> bytes:
    return TOKENS[: blocks * BLOCK].astype("<u4").tobytes()


def sealed(pool: Pool) -> Chain:
    slab = Slab(rows=1)
    slab.compute(TOKENS)
    with pool.lease(10) as lease, slab.planes() as planes:
        lease.seal_short(TOKENS, planes)
        return lease.chain


@pytest.fixture
def stores(pool: Pool) -> Stores:
    """A chain of two whole blocks and a short one, with a state after each whole one."""
    stores = Stores(pool, kept())
    chain = sealed(pool)
    assert stores.checkpoints is not None
    for blocks, state in STATES.items():
        stores.checkpoints.put(chain, blocks, ids(blocks), state)
    return stores


@pytest.fixture
def path(stores: Stores, tmp_path: Path) -> Path:
    path = tmp_path / "ada.archive"
    assert write_archive(path, stores, sealed(stores.pool), MANIFEST, go_on) == 10
    return path


def import_into(stores: Stores, path: Path) -> Chain:
    with Archive(path) as archive:
        archive.verify(stores, go_on)
        with stores.pool.lease(archive.tokens) as lease:
            chain = archive.copy_into(lease, go_on)
            if stores.checkpoints is not None:
                archive.copy_states(stores.checkpoints, chain, go_on)
            return chain


def test_states_come_into_another_pool_with_their_chain(path: Path) -> None:
    """To the bit, under the other pool's keys."""
    with open_pool(None) as other:
        checkpoints = kept()
        chain = import_into(Stores(other, checkpoints), path)
        assert restore(other, TOKENS) == (10, truth(TOKENS))
        assert checkpoints.ends(chain, 3) == [1, 2]
        assert {end: checkpoints.get(chain, end, ids(end)) for end in (1, 2)} == STATES


def test_every_flipped_byte_is_found(path: Path, tmp_path: Path) -> None:
    """In the header and the states; nothing is in the pool or among the checkpoints then."""
    content, damaged = path.read_bytes(), tmp_path / "damaged"
    with open_pool(None) as other:
        stores = Stores(other, kept())
        for at in [*range(128), *range(len(content) - 2 * RECORD_BYTES, len(content))]:
            flipped = bytearray(content)
            flipped[at] ^= 0x40
            damaged.write_bytes(flipped)
            with pytest.raises((ArchiveUnusable, ArchiveMismatch)):
                import_into(stores, damaged)
        assert other.stats().free == other.frames
        assert stores.checkpoints is not None
        assert stores.checkpoints.count == 0


def test_a_damaged_state_is_told_as_such(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with (
        open_pool(None) as other,
        pytest.raises(ArchiveUnusable, match="checkpoint 1 is damaged"),
    ):
        import_into(Stores(other, kept()), path)


def test_a_cut_state_is_found(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-RECORD_BYTES])
    with pytest.raises(ArchiveUnusable, match="cut off or grown"):
        Archive(path)


@pytest.mark.parametrize(
    ("checkpoints", "reason"),
    (
        (None, "this model keeps none"),
        (kept(state_bytes=STATE_BYTES + 1), "this model's 51"),
        (kept(layout=b"f16"), "checkpoint 0 is not of this chain and model"),
    ),
)
def test_states_of_another_shape_are_refused(
    path: Path, checkpoints: Checkpoints | None, reason: str
) -> None:
    """Not ignored: an agent that comes without them would be cold and nobody would know."""
    with open_pool(None) as other:
        with pytest.raises(ArchiveUnusable, match=reason):
            import_into(Stores(other, checkpoints), path)
        assert other.stats().free == other.frames


def test_an_archive_without_states_is_of_the_first_version(pool: Pool, tmp_path: Path) -> None:
    """As it was before there were any, and it comes into a pool with checkpoints as ever."""
    chain = sealed(pool)
    plain, empty = tmp_path / "plain", tmp_path / "empty"
    write_archive(plain, Stores(pool), chain, MANIFEST, go_on)
    write_archive(empty, Stores(pool, kept()), chain, MANIFEST, go_on)
    content = plain.read_bytes()
    assert content == empty.read_bytes()
    assert struct.unpack_from("<I", content, 8) == (1,)
    assert (content[56:64], content[112:128]) == (bytes(8), bytes(16))
    with open_pool(None) as other:
        assert import_into(Stores(other, kept()), plain).tokens == 10


def test_a_damaged_state_is_left_out_of_an_export(stores: Stores, tmp_path: Path) -> None:
    """It is a miss, as for a request; the others travel."""
    chain, path = sealed(stores.pool), tmp_path / "rest"
    checkpoints = kept()
    checkpoints.put(chain, 1, ids(1), STATES[1])
    checkpoints.put(chain, 2, b"other ids", STATES[2])
    write_archive(path, Stores(stores.pool, checkpoints), chain, MANIFEST, go_on)
    assert checkpoints.missed == 1
    with open_pool(None) as other:
        imported = kept()
        assert imported.ends(import_into(Stores(other, imported), path), 3) == [1]


def test_where_there_is_room_for_one_the_last_stays(path: Path) -> None:
    """It is the one that the next turn goes on from."""
    with open_pool(None) as other:
        checkpoints = Checkpoints(None, FINGERPRINT, STATE_BYTES + 50, b"f32", STATE_BYTES)
        chain = import_into(Stores(other, checkpoints), path)
        assert checkpoints.ends(chain, 3) == [2]


def _with_header(content: bytes, offset: int, form: str, value: int) -> bytes:
    """With another field in the header, and checksums that fit."""
    head, rest = bytearray(content[:128]), content[128:]
    struct.pack_into(form, head, offset, value)
    struct.pack_into("<I", head, 12, _native.crc32c(bytes(head[16:])))
    return bytes(head) + rest


def _many(content: bytes) -> bytes:
    grown = content + content[-RECORD_BYTES:] * CHAIN_LIMIT
    grown = _with_header(grown, 112, "<I", 2 + CHAIN_LIMIT)
    return _with_header(grown, 48, "<Q", len(grown))


def _huge(content: bytes) -> bytes:
    return _with_header(content, 56, "<Q", 2**62)


def _without_bytes(content: bytes) -> bytes:
    shorter = content[: -2 * STATE_BYTES]
    return _with_header(_with_header(shorter, 56, "<Q", 0), 48, "<Q", len(shorter))


def _twice(content: bytes) -> bytes:
    return content[: -2 * RECORD_BYTES] + content[-RECORD_BYTES:] * 2


def _moved(blocks: int) -> Callable[[bytes], bytes]:
    """The last state after so many blocks."""

    def forge(content: bytes) -> bytes:
        record = bytearray(content[-RECORD_BYTES:])
        struct.pack_into("<I", record, 4, blocks)
        struct.pack_into("<I", record, 0, _native.crc32c(bytes(record[4:])))
        return content[:-RECORD_BYTES] + bytes(record)

    return forge


@pytest.mark.parametrize(
    "forge", (_many, _huge, _without_bytes, _twice, *map(_moved, (0, 1, 3, 2**32 - 1)))
)
def test_a_forged_archive_is_refused(path: Path, forge: Callable[[bytes], bytes]) -> None:
    """Whatever it says about its states, with checksums that fit: it is read within its bounds."""
    path.write_bytes(forge(path.read_bytes()))
    with open_pool(None) as other:
        stores = Stores(other, kept())
        with pytest.raises(ArchiveUnusable):
            import_into(stores, path)
        assert other.stats().free == other.frames
