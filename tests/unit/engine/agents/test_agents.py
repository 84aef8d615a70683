"""Agents by name over a tiny model: forks, pins, time to live, deletion, archives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from tiny_engine import FINGERPRINT, GEOMETRY, build, cached_tokens, drive, greedy, open_pool

from dovecote_cache import AgentBook, Pool
from dovecote_engine.agents.agent import AgentChanges, AgentView
from dovecote_engine.errors import (
    AgentBusy,
    AgentExists,
    BadArchive,
    BadRequest,
    Draining,
    NothingCached,
    Overloaded,
    PinsExhausted,
    UnknownAgent,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dovecote_engine.engine import Engine

BLOCK = GEOMETRY.block_tokens
PIN = AgentChanges(pinned=True)
OWNERS = (("anna", "otto"), ("otto",), ("beth",))


def prompt(start: int, length: int = 30) -> tuple[int, ...]:
    """Tokens that no other start shares."""
    return tuple((start + 7 * n) % 100 for n in range(length))


def small_pool(path: Path | None = None, frames: int = 32) -> Pool:
    """A pool of about that many frames."""
    with open_pool() as pool:
        frame_bytes = pool.frame_bytes
    return open_pool(path, 8192 + frames * (frame_bytes + 512))


def turn(engine: Engine, agent: str, tokens: tuple[int, ...], count: int = 5) -> tuple[int, ...]:
    """One turn; the conversation so far."""
    answer = drive(engine, greedy("turn", tokens, count, agent=agent))["turn"]
    return (*tokens, *answer.tokens)


def hits(engine: Engine, agent: str | None, tokens: tuple[int, ...]) -> int:
    """What a prompt finds in the pool."""
    return cached_tokens(drive(engine, greedy("look", tokens, 1, agent=agent))["look"])


def names(engine: Engine) -> set[str]:
    return {agent.name for agent in engine.agents.list()}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = build(pool=small_pool(), book=AgentBook.open(tmp_path / "agents.db"))
    yield engine
    engine.close()


def test_an_agent_tells_what_it_holds(engine: Engine) -> None:
    """Tokens and bytes of its chain, what of them is its own, and its use."""
    history = turn(engine, "anna", prompt(1))
    frame_bytes = engine.status.pool.frame_bytes
    anna = engine.agents.get("anna")
    assert (anna.tokens, anna.cached_tokens) == (34, 34)
    assert (anna.bytes, anna.own_bytes, anna.shared_bytes) == (5 * frame_bytes, anna.bytes, 0)
    assert (anna.uses, anna.hit_tokens, anna.pinned, anna.busy) == (1, 0, False, False)
    turn(engine, "anna", (*history, 5))
    anna = engine.agents.get("anna")
    assert (anna.uses, anna.hit_tokens) == (2, 34)
    assert engine.agents.list() == [anna]


def test_a_fork_costs_no_block_and_begins_with_the_parents_history(engine: Engine) -> None:
    """The fork's first turn finds all of it, and the parent loses nothing by it."""
    history = turn(engine, "anna", prompt(1))
    before = engine.status.pool
    fork = engine.agents.fork("anna", "otto")
    assert (fork.tokens, fork.forked_from, fork.own_bytes) == (34, "anna", 0)
    assert engine.agents.get("anna").own_bytes == 0
    assert engine.status.pool == before
    assert hits(engine, "otto", (*history, 50)) == 34
    assert hits(engine, "anna", (*history, 60)) >= 34
    private = engine.agents.get("otto").own_bytes + engine.agents.get("anna").own_bytes
    assert private <= 2 * engine.status.pool.frame_bytes


def test_deleting_one_agent_leaves_the_others_hits(engine: Engine) -> None:
    """What only the deleted one had is free at once, and finds nothing any more."""
    history = turn(engine, "anna", prompt(1))
    engine.agents.fork("anna", "otto")
    longer = turn(engine, "otto", (*history, *prompt(3, 20)))
    free = engine.status.pool.free
    freed = engine.agents.delete("otto")
    assert freed > 0
    assert engine.status.pool.free == free + freed
    assert names(engine) == {"anna"}
    assert hits(engine, "anna", (*history, 9)) >= 34
    assert hits(engine, None, longer) <= 40  # up to the block in which anna ends
    with pytest.raises(UnknownAgent, match="'otto'"):
        engine.agents.get("otto")


def test_deleting_a_fork_that_did_nothing_frees_nothing(engine: Engine) -> None:
    turn(engine, "anna", prompt(1))
    engine.agents.fork("anna", "otto")
    assert engine.agents.delete("anna") == 0
    assert engine.agents.get("otto").cached_tokens == 34
    assert engine.agents.delete("otto") == 5


def test_a_pinned_agent_outlives_the_flood(engine: Engine) -> None:
    """Agents that come and go evict each other and not the pinned one; then they do again."""
    history = turn(engine, "anna", prompt(1))
    assert engine.agents.change("anna", PIN).pinned_bytes == 5 * engine.status.pool.frame_bytes
    for n in range(20):
        turn(engine, f"guest {n}", prompt(2 + n, 60))
    assert engine.agents.get("guest 1").cached_tokens < 64
    assert hits(engine, "anna", (*history, 9)) == 34
    engine.agents.change("anna", AgentChanges(pinned=False))
    for n in range(20):
        turn(engine, f"guest {n}", prompt(40 + n, 60))
    assert engine.agents.get("anna").cached_tokens == 0


def test_pins_are_bounded_and_the_error_has_the_numbers(engine: Engine) -> None:
    """A pin beyond half of the pool changes nothing."""
    half = engine.status.pool.frames // 2
    turn(engine, "anna", prompt(1, 10 * BLOCK))
    turn(engine, "otto", prompt(2, 10 * BLOCK))
    engine.agents.change("anna", PIN)
    with pytest.raises(PinsExhausted, match=str(half)) as raised:
        engine.agents.change("otto", AgentChanges(pinned=True, name="olga", ttl_s=5.0))
    assert (raised.value.wanted_blocks, raised.value.limit_blocks) == (22, half)
    assert names(engine) == {"anna", "otto"}
    assert (engine.agents.get("otto").pinned, engine.agents.get("otto").ttl_s) == (False, None)
    assert engine.agents.get("anna").pinned_bytes == 11 * engine.status.pool.frame_bytes


def test_a_pool_full_of_pins_admits_a_new_agent(tmp_path: Path) -> None:
    """Even where all of it may be pinned: the pinned blocks give way, the new agent runs."""
    book = AgentBook.open(tmp_path / "agents.db")
    engine = build(pool=small_pool(), book=book, pin_limit=1.0)
    frames = engine.status.pool.frames
    turn(engine, "anna", prompt(1, (frames - 1) * BLOCK - 4))
    engine.agents.change("anna", PIN)
    assert engine.status.pool.pinned >= frames - 1
    history = turn(engine, "new", prompt(2, 4 * BLOCK))
    assert hits(engine, "new", (*history, 9)) >= 4 * BLOCK
    anna = engine.agents.get("anna")
    assert anna.pinned
    assert 0 < anna.cached_tokens < anna.tokens
    engine.close()


def test_pins_grow_with_their_agent_and_come_back_after_a_restart(tmp_path: Path) -> None:
    book, pool = tmp_path / "agents.db", tmp_path / "a.pool"
    engine = build(pool=small_pool(pool), book=AgentBook.open(book))
    history = turn(engine, "anna", prompt(1))
    engine.agents.change("anna", PIN)
    turn(engine, "anna", (*history, *prompt(3)))
    assert engine.agents.get("anna").pinned_bytes == engine.agents.get("anna").bytes
    engine.agents.change("anna", AgentChanges(name="Anna"))
    before = engine.agents.get("Anna")
    engine.close()
    engine = build(pool=small_pool(pool), book=AgentBook.open(book))
    assert engine.agents.list() == [before]
    engine.close()


def test_a_resized_pool_still_knows_its_agents(tmp_path: Path) -> None:
    """Chains and pins survive: the keys stay what they were."""
    book, pool = tmp_path / "agents.db", tmp_path / "a.pool"
    engine = build(pool=small_pool(pool), book=AgentBook.open(book))
    turn(engine, "anna", prompt(1))
    before = engine.agents.change("anna", PIN)
    engine.close()
    engine = build(pool=small_pool(pool, frames=64), book=AgentBook.open(book))
    assert engine.agents.list() == [before]
    engine.close()


def test_an_agent_expires_after_its_last_use(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes with its own blocks once it was idle for its time to live; a turn starts it anew."""
    now = [1000.0]
    monkeypatch.setattr("dovecote_engine.agents.agents.time.time", lambda: now[0])
    history = turn(engine, "anna", prompt(1))
    assert engine.agents.change("anna", AgentChanges(ttl_s=60.0)).expires == 1060.0
    now[0] = 1050.0
    turn(engine, "anna", (*history, 5))
    now[0] = 1109.0
    assert names(engine) == {"anna"}
    now[0] = 1110.0
    assert names(engine) == set()
    assert engine.status.pool.free == engine.status.pool.frames
    turn(engine, "anna", prompt(1))
    assert engine.agents.get("anna").expires is None


def test_the_engine_itself_expires_agents(tmp_path: Path) -> None:
    """Nobody has to ask: the engine's own loop looks once a second."""
    clock = [0.0]
    book = AgentBook.open(tmp_path / "agents.db")
    engine = build(pool=small_pool(), book=book)
    engine._clock = lambda: clock[0]
    engine._expired_at_s = 0.0
    turn(engine, "anna", prompt(1))
    engine.agents.change("anna", AgentChanges(ttl_s=1e-9))
    assert engine.wait(0) is False
    assert len(book.list()) == 1
    clock[0] = 1.0
    assert engine.wait(0) is False
    assert book.list() == []
    engine.close()


def test_a_running_agent_is_not_renamed_or_deleted(engine: Engine) -> None:
    """Nor does it expire; it can be looked at, pinned and forked as it was."""
    history = turn(engine, "anna", prompt(1))
    engine.submit(greedy("long", (*history, 9), 40, agent="anna"))
    engine.step()
    assert engine.agents.get("anna").busy
    with pytest.raises(AgentBusy):
        engine.agents.delete("anna")
    with pytest.raises(AgentBusy):
        engine.agents.change("anna", AgentChanges(name="otto"))
    engine.agents.change("anna", AgentChanges(pinned=True, ttl_s=1e-9))
    assert engine.agents.fork("anna", "otto").tokens == 34
    assert names(engine) == {"anna", "otto"}
    while engine.wait(0):
        engine.step()
    assert names(engine) == {"otto"}
    assert engine.status.pool.pinned == 0


def test_names_are_checked(engine: Engine) -> None:
    turn(engine, "anna", prompt(1))
    turn(engine, "otto", prompt(2))
    with pytest.raises(AgentExists):
        engine.agents.fork("anna", "otto")
    with pytest.raises(AgentExists):
        engine.agents.change("anna", AgentChanges(name="otto"))
    for wrong in ("", "x" * 257, "a\nb", "a\0"):
        with pytest.raises(BadRequest) as raised:
            engine.agents.fork("anna", wrong)
        assert raised.value.field == "name"
    for ttl_s in (0.0, -1.0, math.nan):
        with pytest.raises(BadRequest):
            engine.agents.change("anna", AgentChanges(ttl_s=ttl_s))
    with pytest.raises(UnknownAgent):
        engine.agents.fork("nobody", "x")
    with pytest.raises(UnknownAgent):
        engine.agents.delete("nobody")
    assert engine.agents.change("anna", AgentChanges(name="anna")).name == "anna"


def test_an_interrupted_turn_does_not_shorten_the_agent(engine: Engine) -> None:
    """A request that was cancelled before it came to the chain's end leaves it where it was."""
    history = turn(engine, "anna", prompt(1))
    engine.submit(greedy("gone", (*history[:20], 99), 4, agent="anna"))
    engine.cancel("gone")
    while engine.wait(0):
        engine.step()
    assert engine.agents.get("anna").tokens == 34


def exported(engine: Engine, path: Path) -> tuple[AgentView, tuple[int, ...]]:
    """An agent with all settings, in an archive at `path`."""
    history = turn(engine, "anna", prompt(1))
    engine.agents.change("anna", AgentChanges(pinned=True, ttl_s=600.0))
    assert engine.agents.export("anna", path) == 34
    return engine.agents.get("anna"), history


def test_an_exported_agent_goes_on_in_another_engine(engine: Engine, tmp_path: Path) -> None:
    """With its settings and all of its history, and the same answer as at home."""
    archive = tmp_path / "anna.archive"
    anna, history = exported(engine, archive)
    other = build(pool=small_pool(), book=AgentBook.open(tmp_path / "other.db"))
    imported = other.agents.import_(archive)
    assert (imported.name, imported.tokens, imported.cached_tokens) == ("anna", 34, 34)
    assert (imported.pinned, imported.ttl_s, imported.created) == (True, 600.0, anna.created)
    assert hits(other, "anna", (*history, 9)) == 34
    assert turn(other, "anna", (*history, 9)) == turn(engine, "anna", (*history, 9))
    with pytest.raises(AgentExists):
        other.agents.import_(archive)
    assert other.agents.import_(archive, "second").forked_from is None
    assert names(other) == {"anna", "second"}
    other.close()


def test_nothing_is_imported_of_a_bad_archive(engine: Engine, tmp_path: Path) -> None:
    """A flipped byte, a cut file and another model are told apart; no agent and no block comes."""
    archive = tmp_path / "anna.archive"
    exported(engine, archive)
    content = archive.read_bytes()
    other = build(pool=small_pool(), book=AgentBook.open(tmp_path / "other.db"))
    for wrong in (b"", content[:-1], content[:-9] + b"\xff" + content[-8:], b"x" * 1000):
        archive.write_bytes(wrong)
        with pytest.raises(BadArchive) as raised:
            other.agents.import_(archive)
        assert raised.value.code == "bad_archive"
    assert names(other) == set()
    assert other.status.pool.free == other.status.pool.frames
    other.close()
    archive.write_bytes(content)
    stranger = Pool.open(
        None, geometry=GEOMETRY, codec="exact", fingerprint=FINGERPRINT[::-1], size_bytes=1 << 20
    )
    other = build(pool=stranger, book=AgentBook.open(tmp_path / "other.db"))
    with pytest.raises(BadArchive) as raised:
        other.agents.import_(archive)
    assert raised.value.code == "archive_mismatch"
    other.close()


def test_an_import_that_finds_no_room_is_refused(engine: Engine, tmp_path: Path) -> None:
    archive = tmp_path / "anna.archive"
    exported(engine, archive)
    other = build(pool=small_pool(frames=3), book=AgentBook.open(tmp_path / "other.db"))
    with pytest.raises(Overloaded):
        other.agents.import_(archive)
    assert names(other) == set()
    other.close()


def test_an_agent_of_which_nothing_is_left_is_not_exported(engine: Engine, tmp_path: Path) -> None:
    turn(engine, "anna", prompt(1))
    for n in range(20):
        turn(engine, "guest", prompt(2 + n, 60))
    with pytest.raises(NothingCached):
        engine.agents.export("anna", tmp_path / "anna.archive")
    assert not (tmp_path / "anna.archive").exists()
    with pytest.raises(UnknownAgent):
        engine.agents.export("nobody", tmp_path / "anna.archive")


def test_a_damaged_block_ends_the_export_before_it(tmp_path: Path) -> None:
    """The archive holds what is sound, and P1 holds: the block is dropped."""
    pool = small_pool(tmp_path / "a.pool")
    engine = build(pool=pool, book=AgentBook.open(tmp_path / "agents.db"))
    turn(engine, "anna", prompt(1))
    content = bytearray((tmp_path / "a.pool").read_bytes())
    third = len(content) - (pool.frames - 2) * pool.frame_bytes
    with (tmp_path / "a.pool").open("r+b") as file:
        file.seek(third + 50)
        file.write(bytes([content[third + 50] ^ 1]))
    assert engine.agents.export("anna", tmp_path / "anna.archive") == 2 * BLOCK
    assert engine.agents.get("anna").cached_tokens == 2 * BLOCK
    engine.close()


def test_a_closed_engine_exports_nothing(engine: Engine, tmp_path: Path) -> None:
    turn(engine, "anna", prompt(1))
    engine.close()
    with pytest.raises(Draining):
        engine.agents.export("anna", tmp_path / "anna.archive")


def test_without_a_book_there_are_no_agents() -> None:
    engine = build(pool=small_pool())
    turn(engine, "anna", prompt(1))
    assert engine.agents.list() == []
    with pytest.raises(UnknownAgent):
        engine.agents.delete("anna")
    engine.close()


def test_a_survey_tells_who_shares_which_blocks(engine: Engine) -> None:
    """Runs cover what the agents hold; a short end that another one continued is not counted."""
    history = turn(engine, "anna", prompt(1))
    engine.agents.fork("anna", "otto")
    turn(engine, "otto", (*history, 50))
    turn(engine, "beth", prompt(2))
    views, runs = engine.agents.survey()
    assert views == engine.agents.list()
    held = {
        owners: sum(run.blocks for run in runs if set(run.owners) == set(owners))
        for owners in OWNERS
    }
    assert held == {("anna", "otto"): 4, ("otto",): 1, ("beth",): 5}
    assert sum(run.blocks for run in runs) == engine.status.pool.cached
