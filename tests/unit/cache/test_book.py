from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from dovecote_cache import Agent, AgentBook, BookClosed, BookUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIP, LONGER_TIP = b"t" * 16, b"l" * 16


@pytest.fixture
def book_path(tmp_path: Path) -> Path:
    return tmp_path / "agents.sqlite3"


@pytest.fixture
def book(book_path: Path) -> Iterator[AgentBook]:
    with AgentBook.open(book_path) as book:
        yield book


def test_an_agent_is_found_under_its_name_and_model(book: AgentBook) -> None:
    """The same name under another model is another agent."""
    book.record("scout", "small", TIP, 40, 10.5)
    assert book.find("scout", "small") == Agent("scout", "small", TIP, 40, 10.5, 10.5)
    assert book.find("scout", "large") is None
    assert book.find("Scout", "small") is None


def test_a_second_record_moves_the_agent(book: AgentBook) -> None:
    """The agent points at its last chain, and keeps the time it was created."""
    book.record("scout", "small", TIP, 40, 10.0)
    book.record("scout", "small", LONGER_TIP, 72, 20.0)
    assert book.find("scout", "small") == Agent("scout", "small", LONGER_TIP, 72, 10.0, 20.0)


def test_agents_are_listed_most_recent_first(book: AgentBook) -> None:
    """A list has all agents, or those of one model."""
    book.record("a", "small", TIP, 1, 1.0)
    book.record("b", "large", TIP, 1, 3.0)
    book.record("c", "small", TIP, 1, 2.0)
    assert [agent.name for agent in book.list()] == ["b", "c", "a"]
    assert [agent.name for agent in book.list("small")] == ["c", "a"]
    assert book.list("none") == []


def test_the_book_survives_a_reopening(book_path: Path) -> None:
    """What was recorded is there for the next process."""
    with AgentBook.open(book_path) as book:
        book.record("scout", "small", TIP, 40, 10.0)
    with AgentBook.open(book_path) as book:
        assert book.find("scout", "small") == Agent("scout", "small", TIP, 40, 10.0, 10.0)
        assert book.set_aside is None


def test_the_book_survives_a_kill(book_path: Path, tmp_path: Path) -> None:
    """Entries are in the log as soon as they are recorded, without a close."""
    copy = tmp_path / "copy.sqlite3"
    with AgentBook.open(book_path) as book:
        book.record("scout", "small", TIP, 40, 10.0)
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
    book.record(name, name, TIP, 1, 1.0)
    found = book.find(name, name)
    assert found is not None
    assert (found.name, found.model) == (name, name)


@pytest.mark.parametrize("name", ("", "a" * 257))
def test_a_name_has_1_to_256_characters(book: AgentBook, name: str) -> None:
    """Other names are refused, and nothing is recorded."""
    with pytest.raises(ValueError, match="1 to 256"):
        book.record(name, "small", TIP, 1, 1.0)
    assert book.list() == []


def test_any_thread_may_use_the_book(book: AgentBook) -> None:
    """Records of many threads at once all arrive."""
    with ThreadPoolExecutor(8) as threads:
        done = [
            threads.submit(book.record, f"agent {n}", "small", TIP, n, float(n)) for n in range(64)
        ]
        for future in done:
            future.result()
    assert len(book.list()) == 64


def test_two_processes_may_share_the_book(book: AgentBook, book_path: Path) -> None:
    """Servers of different models keep their agents in one file."""
    with AgentBook.open(book_path) as other:
        other.record("scout", "large", TIP, 1, 1.0)
        book.record("scout", "small", TIP, 1, 2.0)
        assert len(book.list()) == len(other.list()) == 2


def test_the_journal_is_a_write_ahead_log(book: AgentBook, book_path: Path) -> None:
    """Readers and the writer do not wait for each other."""
    with closing(sqlite3.connect(book_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
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
                book.record(f"agent {n}", "small", TIP, n, float(n))
        content = bytearray(book_path.read_bytes())
        content[4096:4196] = b"\xff" * 100
        book_path.write_bytes(content)
    before = book_path.read_bytes()
    with AgentBook.open(book_path) as book:
        assert book.list() == []
        assert book.set_aside == book_path.with_name("agents.sqlite3.damaged")
        assert book.set_aside.read_bytes() == before
        book.record("scout", "small", TIP, 1, 1.0)
    with AgentBook.open(book_path) as book:
        assert len(book.list()) == 1


def test_a_later_version_is_not_touched(book_path: Path) -> None:
    """A book that a later release wrote is refused and stays as it is."""
    with closing(sqlite3.connect(book_path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = book_path.read_bytes()
    with pytest.raises(BookUnusable, match="version 2 is later than 1"):
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
        book.record("scout", "small", TIP, 1, 1.0)


def test_sqlite_errors_are_the_books(book: AgentBook, book_path: Path) -> None:
    """A failing statement raises BookUnusable with SQLite's words."""
    with closing(sqlite3.connect(book_path)) as connection:
        connection.execute("DROP TABLE agents")
    with pytest.raises(BookUnusable, match="no such table"):
        book.list()
