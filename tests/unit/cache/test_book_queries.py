"""What the book finds without reading every agent."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from dovecote_cache import AgentBook, Chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAIN = Chain(b"t" * 32, 40)
INDEXES = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
SEARCH = re.compile(r"SEARCH agents USING (PRIMARY KEY|INDEX \w+) \(.*[=<>]\?\)")


@pytest.fixture
def book_path(tmp_path: Path) -> Path:
    return tmp_path / "agents.sqlite3"


@pytest.fixture
def book(book_path: Path) -> Iterator[AgentBook]:
    with AgentBook.open(book_path) as book:
        yield book


def chain_of(*keys: str) -> Chain:
    """A chain whose blocks have keys of one letter, 32 tokens each."""
    return Chain("".join(key * 16 for key in keys).encode(), 32 * len(keys))


def test_neighbours_have_most_in_common(book: AgentBook) -> None:
    """No other chain of the model begins with more of an agent's keys than a neighbour's."""
    chains = {name: chain_of(*name) for name in ("abc", "abd", "abdx", "ac", "b")}
    for name, chain in chains.items():
        book.record(name, "small", chain, 1.0)
    book.record("abdxy", "large", chain_of(*"abdxy"), 1.0)
    for name, chain in chains.items():
        agent = book.find(name, "small")
        assert agent is not None
        near = {other.name: chain.blocks_in_common(other.chain) for other in book.neighbours(agent)}
        assert name not in near
        assert set(near) <= set(chains)
        others = (chain.blocks_in_common(chains[other]) for other in chains if other != name)
        assert max(near.values()) == max(others)


def test_a_fork_is_its_parents_neighbour(book: AgentBook) -> None:
    """Equal chains are next to each other, and an agent alone has nobody."""
    book.record("scout", "small", CHAIN, 1.0)
    scout = book.find("scout", "small")
    assert scout is not None
    assert book.neighbours(scout) == []
    fork = book.fork("scout", "small", "second", 2.0)
    assert {agent.name for agent in book.neighbours(scout)} == {"second"}
    assert {agent.name for agent in book.neighbours(fork)} == {"scout"}


def test_the_agents_that_end_under_a_block_are_found_by_its_key(book: AgentBook) -> None:
    """Those with just one block more, and for the root those with one in all."""
    for name in ("abc", "abd", "abdx", "a"):
        book.record(name, "small", chain_of(*name), 1.0)
    book.record("abe", "large", chain_of(*"abe"), 1.0)
    assert {agent.name for agent in book.ending_under("small", b"b" * 16)} == {"abc", "abd"}
    assert {agent.name for agent in book.ending_under("small", b"")} == {"a"}
    assert book.ending_under("small", b"c" * 16) == []


def test_pinned_agents_come_in_the_order_of_pinning(book: AgentBook) -> None:
    for name, pinned_at in (("a", 3.0), ("b", None), ("c", 1.0)):
        book.record(name, "small", CHAIN, 1.0)
        book.set_pinned(name, "small", pinned_at)
    assert [agent.name for agent in book.pinned("small")] == ["c", "a"]
    assert book.pinned("large") == []


def test_a_book_of_version_2_gets_its_indexes(book_path: Path) -> None:
    """Its agents stay, and nobody who looks for one of them reads them all."""
    with AgentBook.open(book_path) as book:
        book.record("scout", "small", CHAIN, 10.0)
    with closing(sqlite3.connect(book_path)) as connection:
        names = [name for (name,) in connection.execute(INDEXES).fetchall()]
        for name in names:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("CREATE INDEX agents_with_ttl ON agents (model)")
        connection.execute("PRAGMA user_version = 2")
    with AgentBook.open(book_path) as book:
        assert [agent.name for agent in book.list()] == ["scout"]
    with closing(sqlite3.connect(book_path)) as connection:
        assert [name for (name,) in connection.execute(INDEXES).fetchall()] == names


def test_no_query_for_one_agent_reads_all(book: AgentBook) -> None:
    """SQLite finds what is asked for in an index; only a list goes through the table."""
    book.record("scout", "small", CHAIN, 10.0)
    scout = book.find("scout", "small")
    assert scout is not None
    plans: list[str] = []
    connection = book._connection
    assert connection is not None
    connection.set_trace_callback(plans.append)
    book.find("scout", "small")
    book.neighbours(scout)
    book.ending_under("small", b"t" * 16)
    book.pinned("small")
    book.expired("small", 1e9)
    connection.set_trace_callback(None)
    assert len(plans) == 6
    for statement in plans:
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
            assert SEARCH.match(step), step
    assert "agents_expiring" in str([*connection.execute(f"EXPLAIN QUERY PLAN {plans[-1]}")])
