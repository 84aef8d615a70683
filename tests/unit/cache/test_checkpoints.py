from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from slabs import FINGERPRINT, open_pool

from dovecote_cache import CHAIN_LIMIT, KEY_BYTES, Chain, Checkpoints, state_files
from dovecote_cache.checkpoints import POOL_SHARE, states_path
from dovecote_cache.state_files import HEAD_BYTES, StateFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATE = b"state" * 20
LARGE = 1 << 20
BLOCK = 8


def chain(blocks: int, start: int = 1) -> Chain:
    """A chain whose blocks have one key each."""
    numbers = range(start, start + blocks)
    keys = b"".join(number.to_bytes(KEY_BYTES, "little") for number in numbers)
    return Chain(keys, blocks * BLOCK)


def opened(path: Path | None, limit_bytes: int = LARGE) -> Checkpoints:
    return Checkpoints(path, FINGERPRINT, limit_bytes)


@pytest.fixture(params=("memory", "files"))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Both kinds behave alike."""
    return None if request.param == "memory" else tmp_path / "a.states"


def test_a_state_is_found_at_the_end_of_its_block(path: Path | None) -> None:
    """The longest beginning that has one is told; what was kept comes back as it was."""
    checkpoints = opened(path)
    assert checkpoints.longest(chain(5), 5) == 0
    assert checkpoints.put(chain(5), 2, b"ids", STATE)
    assert [checkpoints.longest(chain(5), blocks) for blocks in (1, 2, 5, 9)] == [0, 2, 2, 2]
    assert checkpoints.get(chain(5), 2, b"ids") == STATE
    assert checkpoints.longest(chain(5, start=50), 5) == 0
    assert (checkpoints.count, checkpoints.missed) == (1, 0)


def test_one_of_other_tokens_under_the_same_key_is_a_miss(path: Path | None) -> None:
    """A collision of keys costs a miss, never a wrong state."""
    checkpoints = opened(path)
    checkpoints.put(chain(2), 2, b"ids", STATE)
    assert checkpoints.get(chain(2), 2, b"other ids") is None
    assert (checkpoints.count, checkpoints.missed, checkpoints.bytes) == (0, 1, 0)


def test_files_outlive_their_process(tmp_path: Path) -> None:
    """They are found again, by their owner only, and count again."""
    path = tmp_path / "a.states"
    before = opened(path)
    before.put(chain(3), 1, b"ids", STATE)
    before.close()
    after = opened(path)
    assert after.get(chain(3), 1, b"ids") == STATE
    assert after.bytes == before.bytes == HEAD_BYTES + len(STATE)
    (file,) = path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _remove(file: Path) -> None:
    file.unlink()


def _replace(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", (_cut, _empty, _remove, _replace))
def test_a_torn_file_is_a_miss_and_counted(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Whatever became of it, it is not served and not looked for again."""
    path = tmp_path / "a.states"
    checkpoints = opened(path)
    checkpoints.put(chain(1), 1, b"ids", STATE)
    checkpoints.flush()
    (file,) = path.iterdir()
    damage(file)
    assert checkpoints.get(chain(1), 1, b"ids") is None
    assert checkpoints.longest(chain(1), 1) == 0
    assert (checkpoints.missed, checkpoints.bytes) == (1, 0)


def test_every_bit_is_covered(tmp_path: Path) -> None:
    """One flipped bit anywhere in the file makes it a miss."""
    path = tmp_path / "a.states"
    checkpoints = opened(path)
    for place in range(HEAD_BYTES + len(STATE)):
        checkpoints.put(chain(1), 1, b"ids", STATE)
        checkpoints.flush()
        (file,) = path.iterdir()
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
        assert checkpoints.get(chain(1), 1, b"ids") is None


def test_another_fingerprint_finds_nothing(tmp_path: Path) -> None:
    """The digest is keyed with it: a state of other weights is a miss."""
    path = tmp_path / "a.states"
    ours = opened(path)
    ours.put(chain(1), 1, b"ids", STATE)
    ours.flush()
    assert Checkpoints(path, bytes(32), LARGE).get(chain(1), 1, b"ids") is None


def test_the_longest_unused_goes_first(path: Path | None) -> None:
    """What is read or kept again stays; the bytes of all never exceed the limit."""
    size = HEAD_BYTES + len(STATE)
    checkpoints = opened(path, 3 * size)
    chains = [chain(1, start=number) for number in (10, 20, 30, 40)]
    for each in chains[:3]:
        checkpoints.put(each, 1, b"ids", STATE)
    checkpoints.get(chains[0], 1, b"ids")
    checkpoints.put(chains[1], 1, b"ids", STATE)
    checkpoints.put(chains[3], 1, b"ids", STATE)
    assert [checkpoints.longest(each, 1) for each in chains] == [1, 1, 0, 1]
    assert checkpoints.bytes == 3 * size


def test_the_order_of_use_outlives_the_process(tmp_path: Path) -> None:
    """A smaller limit at the next start spares what was used last."""
    path, size = tmp_path / "a.states", HEAD_BYTES + len(STATE)
    checkpoints = opened(path)
    for start in (10, 20):
        checkpoints.put(chain(1, start), 1, b"ids", STATE)
    checkpoints.flush()
    for file in path.iterdir():
        os.utime(file, (1000, 1000))
    checkpoints.get(chain(1, 10), 1, b"ids")
    checkpoints.close()
    after = opened(path, size)
    after.flush()
    assert after.count == len(list(path.iterdir())) == 1
    assert after.longest(chain(1, 10), 1) == 1


def test_a_state_larger_than_everything_is_not_kept(path: Path | None) -> None:
    """Nor does it drive out those that fit."""
    checkpoints = opened(path, 2 * len(STATE))
    checkpoints.put(chain(1), 1, b"ids", STATE)
    assert not checkpoints.put(chain(2), 2, b"ids", 2 * STATE)
    assert checkpoints.longest(chain(2), 2) == 1


def test_a_chain_keeps_a_few(path: Path | None) -> None:
    """However many turns it has: its first, for those who share it, and its last ones."""
    checkpoints = opened(path)
    for blocks in range(1, 20):
        checkpoints.put(chain(blocks), blocks, b"ids", STATE)
        assert checkpoints.count <= CHAIN_LIMIT
    found = [end for end in range(1, 20) if checkpoints.get(chain(19), end, b"ids")]
    assert (found[0], found[-2:]) == (1, [18, 19])


def test_what_a_crash_left_goes_and_strange_files_stay(tmp_path: Path) -> None:
    """A half-written file is removed at the next start; what is no checkpoint is let alone."""
    path = tmp_path / "a.states"
    path.mkdir()
    for name in (f"{'0' * 32}.state.new", "notes.txt", "ab.state"):
        (path / name).write_bytes(b"x")
    assert opened(path).count == 0
    assert sorted(file.name for file in path.iterdir()) == ["ab.state", "notes.txt"]


def test_a_failed_write_leaves_the_others(tmp_path: Path) -> None:
    """It is told once, and the state is no longer offered; nothing half made is left."""
    path = tmp_path / "a.states"
    checkpoints = opened(path)
    checkpoints.put(chain(1), 1, b"ids", STATE)
    (path / f"{chain(1, 7).keys.hex()}.state").mkdir()
    assert checkpoints.put(chain(1, 7), 1, b"ids", STATE)
    checkpoints.flush()
    assert checkpoints.longest(chain(1, 7), 1) == 0
    assert checkpoints.get(chain(1), 1, b"ids") == STATE
    assert [type(error) for error in checkpoints.take_errors()] == [IsADirectoryError]
    assert not checkpoints.take_errors()
    assert (checkpoints.count, checkpoints.bytes) == (1, HEAD_BYTES + len(STATE))
    assert not list(path.glob("*.new"))


def test_a_pool_made_anew_has_none(tmp_path: Path) -> None:
    """Its keys are new: what was kept under the former ones can never be found."""
    path = tmp_path / "a.pool"
    for is_lost in (False, True):
        if is_lost:
            path.unlink()
        with open_pool(path) as pool:
            checkpoints = Checkpoints.beside(pool)
            assert checkpoints.count == 0
            checkpoints.put(chain(1), 1, b"ids", b"")
            checkpoints.close()
    with open_pool(path) as pool:
        assert Checkpoints.beside(pool).count == 1
    assert len(list(states_path(path).iterdir())) == 1


def test_checkpoints_take_a_share_of_the_pool(tmp_path: Path) -> None:
    """A third of what the pool takes, so a quarter of both."""
    with open_pool(tmp_path / "a.pool") as pool:
        checkpoints = Checkpoints.beside(pool)
        share = pool.frames * pool.frame_bytes // POOL_SHARE
        assert checkpoints.put(chain(1), 1, b"ids", bytes(share - HEAD_BYTES))
        assert not checkpoints.put(chain(1, 9), 1, b"ids", bytes(share - HEAD_BYTES + 1))


@contextmanager
def slow_disk(checkpoints: Checkpoints) -> Iterator[None]:
    """Nothing is written until the block ends."""
    store, goes_on = checkpoints._store, Event()
    assert isinstance(store, StateFiles)
    store._writer.submit(goes_on.wait)
    try:
        yield
    finally:
        goes_on.set()
        checkpoints.flush()


def test_a_state_is_offered_before_it_is_written(tmp_path: Path) -> None:
    """From memory; a kill until then loses it and nothing else."""
    path = tmp_path / "a.states"
    checkpoints = opened(path)
    with slow_disk(checkpoints):
        checkpoints.put(chain(1), 1, b"ids", STATE)
        assert checkpoints.longest(chain(1), 1) == 1
        assert checkpoints.get(chain(1), 1, b"ids") == STATE
        assert not list(path.iterdir())
    assert checkpoints.get(chain(1), 1, b"ids") == STATE
    assert len(list(path.iterdir())) == 1


def test_what_is_dropped_before_it_is_written_never_is(tmp_path: Path) -> None:
    """Whatever else happened to its key meanwhile: the last word counts."""
    path = tmp_path / "a.states"
    checkpoints = opened(path)
    with slow_disk(checkpoints):
        for start in (10, 20):
            checkpoints.put(chain(1, start), 1, b"ids", STATE)
        checkpoints.clear()
        checkpoints.put(chain(1, 20), 1, b"other ids", STATE)
    assert [file.stem for file in path.iterdir()] == [chain(1, 20).keys.hex()]
    assert checkpoints.get(chain(1, 20), 1, b"other ids") == STATE
    checkpoints.close()


def test_what_waits_for_the_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much raises and drives nothing out; it fits again once the disk is done."""
    monkeypatch.setattr(state_files, "BACKLOG_BYTES", 2 * len(STATE))
    checkpoints = opened(tmp_path / "a.states")
    with slow_disk(checkpoints):
        checkpoints.put(chain(1, 10), 1, b"ids", STATE)
        with pytest.raises(OSError, match="wait for the disk"):
            checkpoints.put(chain(1, 20), 1, b"ids", STATE)
        assert (checkpoints.count, checkpoints.longest(chain(1, 10), 1)) == (1, 1)
    assert checkpoints.put(chain(1, 20), 1, b"ids", STATE)


def test_an_import_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a request would be refused."""
    monkeypatch.setattr(state_files, "BACKLOG_BYTES", len(STATE))
    checkpoints = opened(tmp_path / "a.states")
    with ThreadPoolExecutor(1) as importer:
        with slow_disk(checkpoints):
            checkpoints.put(chain(1, 10), 1, b"ids", STATE)
            brought = importer.submit(checkpoints.bring, chain(1, 20), 1, b"ids", STATE)
            assert not brought.done()
        assert brought.result()
    assert checkpoints.get(chain(1, 20), 1, b"ids") == STATE


def test_closing_waits_for_what_is_not_yet_written(tmp_path: Path) -> None:
    """All that was put is there in the next process."""
    checkpoints = opened(tmp_path / "a.states")
    for start in range(10, 60, 10):
        checkpoints.put(chain(1, start), 1, b"ids", bytes(LARGE // 8))
    checkpoints.close()
    assert opened(tmp_path / "a.states").count == 5


def test_ends_are_those_of_the_whole_chain(path: Path | None) -> None:
    """Ascending, within the blocks asked for; `longest` is the last of them."""
    checkpoints = opened(path)
    for blocks in (2, 4, 5):
        checkpoints.put(chain(5), blocks, b"ids", STATE)
    assert [checkpoints.ends(chain(9), blocks) for blocks in (1, 4, 9)] == [[], [2, 4], [2, 4, 5]]
    assert checkpoints.longest(chain(9), 9) == 5
