from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from dovecote_cache import (
    Agent,
    AgentBook,
    AgentUnknown,
    BookClosed,
    BookUnusable,
    Chain,
    NameTaken,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAIN, LONGER = Chain(b"t" * 32, 40), Chain(b"t" * 32 + b"l" * 16, 72)

VERSION_1 = """
CREATE TABLE agents (
    name TEXT NOT NULL, model TEXT NOT NULL, tip BLOB NOT NULL, tokens INTEGER NOT NULL,
    created REAL NOT NULL, last_used REAL NOT NULL, PRIMARY KEY (name, model)
) STRICT, WITHOUT ROWID;
INSERT INTO agents VALUES ('scout', 'small', x'74747474747474747474747474747474', 20, 10, 11);
PRAGMA user_version = 1;
"""


@pytest.fixture
def book_path(tmp_path: Path) -> Path:
    return tmp_path / "agents.sqlite3"


@pytest.fixture
def book(book_path: Path) -> Iterator[AgentBook]:
    with AgentBook.open(book_path) as book:
        yield book


def test_an_agent_is_found_under_its_name_and_model(book: AgentBook) -> None:
    """The same name under another model is another agent."""
    book.record("scout", "small", CHAIN, 10.5)
    assert book.find("scout", "small") == Agent("scout", "small", CHAIN, 10.5, 10.5)
    assert book.find("scout", "large") is None
    assert book.find("Scout", "small") is None


def test_a_second_record_moves_the_agent(book: AgentBook) -> None:
    """The agent points at its last chain, and keeps the time it was created."""
    book.record("scout", "small", CHAIN, 10.0)
    book.record("scout", "small", LONGER, 20.0, hit_tokens=32)
    assert book.find("scout", "small") == Agent(
        "scout", "small", LONGER, 10.0, 20.0, uses=2, hit_tokens=32
    )


def test_agents_are_listed_most_recent_first(book: AgentBook) -> None:
    """A list has all agents, or those of one model."""
    book.record("a", "small", CHAIN, 1.0)
    book.record("b", "large", CHAIN, 3.0)
    book.record("c", "small", CHAIN, 2.0)
    assert [agent.name for agent in book.list()] == ["b", "c", "a"]
    assert [agent.name for agent in book.list("small")] == ["c", "a"]
    assert book.list("none") == []


def test_the_book_survives_a_reopening(book_path: Path) -> None:
    """What was recorded is there for the next process."""
    with AgentBook.open(book_path) as book:
        book.record("scout", "small", CHAIN, 10.0)
    with AgentBook.open(book_path) as book:
        assert book.find("scout", "small") == Agent("scout", "small", CHAIN, 10.0, 10.0)
        assert book.set_aside is None


def test_the_book_survives_a_kill(book_path: Path, tmp_path: Path) -> None:
    """Entries are in the log as soon as they are recorded, without a close."""
    copy = tmp_path / "copy.sqlite3"
    with AgentBook.open(book_path) as book:
        book.record("scout", "small", CHAIN, 10.0)
        for suffix in ("", "-wal"):
            copy.with_name(copy.name + suffix).write_bytes(
                book_path.with_name(book_path.name + suffix).read_bytes()
            )
    with AgentBook.open(copy) as book:
        assert [agent.name for agent in book.list()] == ["scout"]


@pytest.mark.parametrize(
    "name", ("../../etc", "a" * 256, "ünï", "a\0b", "'; DROP TABLE agents", " ", "%", "\n")
)
def test_names_are_stored_as_given(book: AgentBook, name: str) -> None:
    """A name is data: whatever is in it comes back unchanged."""
    book.record(name, name, CHAIN, 1.0)
    found = book.find(name, name)
    assert found is not None
    assert (found.name, found.model) == (name, name)


@pytest.mark.parametrize("name", ("", "a" * 257))
def test_a_name_has_1_to_256_characters(book: AgentBook, name: str) -> None:
    """Other names are refused, and nothing is recorded."""
    with pytest.raises(ValueError, match="1 to 256"):
        book.record(name, "small", CHAIN, 1.0)
    assert book.list() == []


def test_any_thread_may_use_the_book(book: AgentBook) -> None:
    """Records of many threads at once all arrive."""
    with ThreadPoolExecutor(8) as threads:
        done = [
            threads.submit(book.record, f"agent {n}", "small", CHAIN, float(n)) for n in range(64)
        ]
        for future in done:
            future.result()
    assert len(book.list()) == 64


def test_two_processes_may_share_the_book(book: AgentBook, book_path: Path) -> None:
    """Servers of different models keep their agents in one file."""
    with AgentBook.open(book_path) as other:
        other.record("scout", "large", CHAIN, 1.0)
        book.record("scout", "small", CHAIN, 2.0)
        assert len(book.list()) == len(other.list()) == 2


def test_the_journal_is_a_write_ahead_log(book: AgentBook, book_path: Path) -> None:
    """Readers and the writer do not wait for each other."""
    with closing(sqlite3.connect(book_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert book.list() == []


def test_the_book_is_for_its_owner_only(book_path: Path) -> None:
    """The file has mode 0600, even if it was looser."""
    book_path.touch(0o644)
    with AgentBook.open(book_path):
        assert stat.S_IMODE(book_path.stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ("foreign", "flipped"))
def test_a_damaged_book_is_set_aside(book_path: Path, damage: str) -> None:
    """Damage costs the names, not the start; the file is kept for whoever wants to look."""
    if damage == "foreign":
        book_path.write_bytes(b"not a book" * 500)
    else:
        with AgentBook.open(book_path) as book:
            for n in range(200):
                book.record(f"agent {n}", "small", CHAIN, float(n))
        content = bytearray(book_path.read_bytes())
        content[4096:4196] = b"\xff" * 100
        book_path.write_bytes(content)
    before = book_path.read_bytes()
    with AgentBook.open(book_path) as book:
        assert book.list() == []
        assert book.set_aside == book_path.with_name("agents.sqlite3.damaged")
        assert book.set_aside.read_bytes() == before
        book.record("scout", "small", CHAIN, 1.0)
    with AgentBook.open(book_path) as book:
        assert len(book.list()) == 1


def test_a_later_version_is_not_touched(book_path: Path) -> None:
    """A book that a later release wrote is refused and stays as it is."""
    with closing(sqlite3.connect(book_path)) as connection:
        connection.execute("PRAGMA user_version = 4")
    before = book_path.read_bytes()
    with pytest.raises(BookUnusable, match="version 4 is later than 3"):
        AgentBook.open(book_path)
    assert book_path.read_bytes() == before


def test_a_closed_book_says_so(book_path: Path) -> None:
    """Every use after the close raises, and a second close does nothing."""
    book = AgentBook.open(book_path)
    book.close()
    book.close()
    with pytest.raises(BookClosed, match="book is closed"):
        book.list()
    with pytest.raises(BookClosed):
        book.find("scout", "small")
    with pytest.raises(BookClosed):
        book.record("scout", "small", CHAIN, 1.0)


def test_sqlite_errors_are_the_books(book: AgentBook, book_path: Path) -> None:
    """A failing statement raises BookUnusable with SQLite's words."""
    with closing(sqlite3.connect(book_path)) as connection:
        connection.execute("DROP TABLE agents")
    with pytest.raises(BookUnusable, match="no such table"):
        book.list()


def test_a_book_of_version_1_is_brought_up_to_date(book_path: Path) -> None:
    """Its agents keep name, length and times, and have no settings yet."""
    with closing(sqlite3.connect(book_path)) as connection:
        connection.executescript(VERSION_1)
    with AgentBook.open(book_path) as book:
        assert book.list() == [Agent("scout", "small", Chain(b"t" * 16, 20), 10.0, 11.0)]
        book.record("scout", "small", LONGER, 20.0)
        found = book.find("scout", "small")
        assert found is not None
        assert (found.chain, found.uses) == (LONGER, 2)


def test_a_fork_is_another_name_for_the_same_chain(book: AgentBook) -> None:
    """It has its own history and settings, and outlives the one it came from."""
    book.record("scout", "small", CHAIN, 10.0, hit_tokens=32)
    book.set_pinned("scout", "small", 11.0)
    fork = book.fork("scout", "small", "second", 12.0)
    assert fork == Agent("second", "small", CHAIN, 12.0, 12.0, uses=0, forked_from="scout")
    assert book.find("second", "small") == fork
    book.record("second", "small", LONGER, 13.0)
    book.delete("scout", "small")
    assert [(agent.name, agent.tokens) for agent in book.list()] == [("second", 72)]


def test_a_new_name_must_be_free(book: AgentBook) -> None:
    """A refused fork, rename or addition leaves both agents as they were."""
    book.record("scout", "small", CHAIN, 10.0)
    book.record("second", "small", LONGER, 11.0)
    before = book.list()
    with pytest.raises(NameTaken, match="'second'"):
        book.rename("scout", "small", "second")
    with pytest.raises(NameTaken):
        book.fork("scout", "small", "second", 12.0)
    with pytest.raises(NameTaken):
        book.add(before[0])
    with pytest.raises(ValueError, match="1 to 256"):
        book.rename("scout", "small", "")
    assert book.list() == before


def test_a_renamed_agent_keeps_everything_else(book: AgentBook) -> None:
    book.record("scout", "small", CHAIN, 10.0)
    book.record("scout", "large", CHAIN, 10.0)
    book.rename("scout", "small", "ranger")
    book.rename("ranger", "small", "ranger")
    assert book.find("scout", "small") is None
    assert book.find("ranger", "small") == Agent("ranger", "small", CHAIN, 10.0, 10.0)
    assert book.find("scout", "large") is not None


def test_who_is_not_in_the_book_cannot_be_changed(book: AgentBook) -> None:
    """Every change of an unknown agent says so."""
    book.record("scout", "large", CHAIN, 10.0)
    for change in (
        lambda: book.rename("scout", "small", "ranger"),
        lambda: book.fork("scout", "small", "ranger", 1.0),
        lambda: book.set_pinned("scout", "small", 1.0),
        lambda: book.set_ttl("scout", "small", 1.0),
        lambda: book.delete("scout", "small"),
    ):
        with pytest.raises(AgentUnknown, match="'scout'"):
            change()
    assert len(book.list()) == 1


def test_an_agent_expires_from_its_last_use_on(book: AgentBook) -> None:
    """A turn starts the time anew; without a time to live an agent stays."""
    book.record("scout", "small", CHAIN, 10.0)
    book.record("other", "small", CHAIN, 10.0)
    book.set_ttl("scout", "small", 60.0)
    assert book.expired("small", 69.9) == []
    assert [agent.name for agent in book.expired("small", 70.0)] == ["scout"]
    assert book.expired("large", 70.0) == []
    book.record("scout", "small", LONGER, 50.0)
    (scout,) = [agent for agent in book.list() if agent.name == "scout"]
    assert (scout.ttl_s, scout.expires) == (60.0, 110.0)
    assert book.expired("small", 109.0) == []
    book.set_ttl("scout", "small", None)
    assert book.expired("small", 1e9) == []


@pytest.mark.parametrize("ttl_s", (0.0, -1.0, float("nan")))
def test_a_time_to_live_is_positive(book: AgentBook, ttl_s: float) -> None:
    book.record("scout", "small", CHAIN, 10.0)
    with pytest.raises(ValueError, match="more than 0"):
        book.set_ttl("scout", "small", ttl_s)


def test_settings_survive_a_reopening(book_path: Path) -> None:
    with AgentBook.open(book_path) as book:
        book.record("scout", "small", CHAIN, 10.0)
        book.set_pinned("scout", "small", 11.0)
        book.set_ttl("scout", "small", 60.0)
        before = book.list()
    with AgentBook.open(book_path) as book:
        assert book.list() == before
        assert (before[0].pinned_at, before[0].ttl_s) == (11.0, 60.0)


def test_a_book_in_memory_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them know nothing of each other, and nothing is left on disk."""
    monkeypatch.chdir(tmp_path)
    with AgentBook.in_memory() as one, AgentBook.in_memory() as other:
        one.record("atlas", "m", Chain(bytes(16), 1), 0.0)
        assert [agent.name for agent in one.list()] == ["atlas"]
        assert other.list() == []
    assert list(tmp_path.iterdir()) == []
