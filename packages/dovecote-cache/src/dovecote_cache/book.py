"""Which agent is at which chain: names, keys and settings, never tokens or text.

Content decides what is shared, so nothing is wrong if the book is lost: a name only serves to list,
retain and resume. Names are data here. They are stored as given and never become paths.

An agent is a row. A fork is a second row over the same chain, and costs no block.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from dovecote_cache.chain import Chain
from dovecote_cache.errors import AgentUnknown, BookClosed, BookUnusable, NameTaken
from dovecote_cache.private import private_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["Agent", "AgentBook"]

_SCHEMA_VERSION: Final = 3
_MAX_NAME_CHARACTERS: Final = 256
# What the log keeps of the disk after it was written into the book: SQLite's own checkpoints come
# after as much, and a log that once was longer would stay so.
_JOURNAL_BYTES: Final = 4 << 20
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS agents (
    name        TEXT NOT NULL,
    model       TEXT NOT NULL,
    keys        BLOB NOT NULL,              -- keys of the chain's blocks, 16 bytes each
    tokens      INTEGER NOT NULL,
    created     REAL NOT NULL,              -- unix seconds, as all times
    last_used   REAL NOT NULL,
    uses        INTEGER NOT NULL DEFAULT 1, -- turns
    hit_tokens  INTEGER NOT NULL DEFAULT 0, -- what those turns found in the pool, together
    pinned_at   REAL,                       -- null: not pinned
    ttl_s       REAL,                       -- null: until it is deleted; else from the last use
    forked_from TEXT,                       -- the name that the other one had then
    PRIMARY KEY (name, model)
) STRICT, WITHOUT ROWID;
"""
# One agent's neighbours, those that end where it goes on, and the few that are pinned or expire are
# found without reading the others. The key before the last one is a hash of all before it.
_INDEXES: Final = """
DROP INDEX IF EXISTS agents_with_ttl; -- of version 2
CREATE INDEX IF NOT EXISTS agents_expiring ON agents (model, last_used + ttl_s)
    WHERE ttl_s IS NOT NULL;
CREATE INDEX IF NOT EXISTS agents_pinned ON agents (model, pinned_at) WHERE pinned_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS agents_by_keys ON agents (model, keys);
CREATE INDEX IF NOT EXISTS agents_by_parent ON agents (model, substr(keys, -32, 16));
"""
# Version 2 had fewer indexes. Version 1 kept only the key of a chain's last block, which names no
# chain of more than one; the agent's next turn puts that right.
_FROM_VERSION_1: Final = """
ALTER TABLE agents RENAME COLUMN tip TO keys;
ALTER TABLE agents ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
ALTER TABLE agents ADD COLUMN hit_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN pinned_at REAL;
ALTER TABLE agents ADD COLUMN ttl_s REAL;
ALTER TABLE agents ADD COLUMN forked_from TEXT;
"""
_COLUMNS: Final = (
    "name, model, keys, tokens, created, last_used, uses, hit_tokens, pinned_at, ttl_s, forked_from"
)
# Statements are put together from constants only; every value is a parameter.
_PLACES: Final = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
_ADD: Final = f"INSERT INTO agents ({_COLUMNS}) VALUES ({_PLACES})"  # noqa: S608 - constants
_RECORD: Final = f"""{_ADD}
ON CONFLICT (name, model) DO UPDATE SET
    keys = excluded.keys, tokens = excluded.tokens, last_used = excluded.last_used,
    uses = uses + 1, hit_tokens = hit_tokens + excluded.hit_tokens
"""
_SELECT: Final = f"SELECT {_COLUMNS} FROM agents"  # noqa: S608 - constants
_NEXT: Final = f"{_SELECT} WHERE model = ?1 AND keys >= ?2 AND name <> ?3 ORDER BY keys LIMIT 1"
_PREVIOUS: Final = (
    f"{_SELECT} WHERE model = ?1 AND keys <= ?2 AND name <> ?3 ORDER BY keys DESC LIMIT 1"
)
_UNDER: Final = f"{_SELECT} WHERE model = ? AND substr(keys, -32, 16) = ?"
_EXPIRED: Final = f"{_SELECT} WHERE model = ? AND ttl_s IS NOT NULL AND last_used + ttl_s <= ?"
_PINNED: Final = f"{_SELECT} WHERE model = ? AND pinned_at IS NOT NULL ORDER BY pinned_at"
_ONE: Final = "WHERE name = ? AND model = ?"
_DELETE: Final = f"DELETE FROM agents {_ONE} RETURNING {_COLUMNS}"  # noqa: S608 - constants
_CHANGE: Final = {
    column: f"UPDATE agents SET {column} = ? {_ONE}"  # noqa: S608 - constants
    for column in ("name", "pinned_at", "ttl_s")
}


@dataclass(frozen=True, slots=True)
class Agent:
    """A name over a chain of one model, with its settings. Times are unix seconds."""

    name: str
    model: str
    chain: Chain
    created: float
    last_used: float
    uses: int = 1
    """Turns that it took."""
    hit_tokens: int = 0
    """Tokens that these turns found in the pool, together."""
    pinned_at: float | None = None
    """Since when its blocks are evicted last; None: they are not."""
    ttl_s: float | None = None
    """It is forgotten when it was not used for so long; None: never."""
    forked_from: str | None = None
    """The agent whose chain it began with, by the name that it had then."""

    @property
    def tokens(self) -> int:
        """Tokens of the chain, cached or not."""
        return self.chain.tokens

    @property
    def expires(self) -> float | None:
        """When it is forgotten if it is not used until then."""
        return None if self.ttl_s is None else self.last_used + self.ttl_s


Agents = list[Agent]


class _BookDamaged(BookUnusable):
    """The file is no book of agents that SQLite can read."""


class AgentBook:
    """The agents in one SQLite file (WAL, mode 0600). Any thread may use it.

    A power cut may lose the last entries, never the book. Every method but `close` raises
    BookClosed once the book is closed, and BookUnusable if SQLite fails.
    """

    __slots__ = ("_connection", "_lock", "_path", "_set_aside")

    def __init__(self, connection: sqlite3.Connection, path: Path, set_aside: Path | None) -> None:
        """Use `AgentBook.open`."""
        self._connection: sqlite3.Connection | None = connection
        self._lock = Lock()
        self._path = path
        self._set_aside = set_aside

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the book at `path`, or make it. A damaged one is set aside for a blank one.

        Raises: BookUnusable if the book is of a later version or SQLite cannot open it, and it is
        left as it is; OSError.
        """
        try:
            return cls(_connect(path), path, None)
        except _BookDamaged:
            set_aside = _set_aside(path)
        return cls(_connect(path), path, set_aside)

    @classmethod
    def in_memory(cls) -> Self:
        """A blank book without a file, gone when closed."""
        path = Path(":memory:")
        with _book_errors(path):
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            _prepare(connection, path)
        return cls(connection, path, None)

    @property
    def set_aside(self) -> Path | None:
        """Where `open` moved a damaged book to; None if the book was sound."""
        return self._set_aside

    def record(self, name: str, model: str, chain: Chain, now: float, hit_tokens: int = 0) -> None:
        """Note a turn: the agent is at the chain's end now. It is created if need be.

        Raises: ValueError if the name is empty or longer than 256 characters.
        """
        agent = Agent(name, model, chain, now, now, hit_tokens=hit_tokens)
        with self._open() as connection:
            connection.execute(_RECORD, _row_of(agent))

    def add(self, agent: Agent) -> None:
        """Put a new agent into the book. Raises: NameTaken; ValueError as `record`."""
        row = _row_of(agent)
        with self._open() as connection, _taken(agent.name):
            connection.execute(_ADD, row)

    def fork(self, name: str, model: str, new_name: str, now: float) -> Agent:
        """A new agent over the same chain, with settings of its own.

        Raises: AgentUnknown, NameTaken; ValueError as `record`.
        """
        parent = self._known(name, model)
        agent = Agent(new_name, model, parent.chain, now, now, uses=0, forked_from=name)
        self.add(agent)
        return agent

    def rename(self, name: str, model: str, new_name: str) -> None:
        """Give the agent another name. Raises: AgentUnknown, NameTaken; ValueError as `record`."""
        _check_name(new_name)
        with _taken(new_name):
            self._update(name, model, "name", new_name)

    def set_pinned(self, name: str, model: str, pinned_at: float | None) -> None:
        """Note since when the agent is pinned, None for not. Raises: AgentUnknown."""
        self._update(name, model, "pinned_at", pinned_at)

    def set_ttl(self, name: str, model: str, ttl_s: float | None) -> None:
        """Forget the agent once it was not used for `ttl_s`, None for never.

        Raises: AgentUnknown; ValueError unless it is positive.
        """
        if ttl_s is not None and not ttl_s > 0:
            raise ValueError(f"a time to live is more than 0 seconds, not {ttl_s}")
        self._update(name, model, "ttl_s", ttl_s)

    def delete(self, name: str, model: str) -> Agent:
        """Take the agent out of the book; what it was. Raises: AgentUnknown."""
        with self._open() as connection:
            deleted = _agents(connection.execute(_DELETE, (name, model)))
        if not deleted:
            raise AgentUnknown(name)
        return deleted[0]

    def find(self, name: str, model: str) -> Agent | None:
        """The agent of that name under that model, None if there is none."""
        with self._open() as connection:
            found = _agents(connection.execute(f"{_SELECT} {_ONE}", (name, model)))
        return found[0] if found else None

    def neighbours(self, agent: Agent) -> Agents:
        """One or two other agents of the model, or none: those next to it in the order of keys.

        No other chain begins with more of this agent's keys than one of them.
        """
        parameters = (agent.model, agent.chain.keys, agent.name)
        with self._open() as connection:
            found = [_agents(connection.execute(query, parameters)) for query in (_NEXT, _PREVIOUS)]
        return [agent for agents in found for agent in agents]

    def ending_under(self, model: str, key: bytes) -> Agents:
        """The agents whose chain has one block after the block of that key; one in all for b""."""
        with self._open() as connection:
            return _agents(connection.execute(_UNDER, (model, key)))

    def pinned(self, model: str) -> Agents:
        """The pinned agents of the model, those first that were pinned first."""
        with self._open() as connection:
            return _agents(connection.execute(_PINNED, (model,)))

    def expired(self, model: str, now: float) -> Agents:
        """The agents of the model whose time is over, still in the book."""
        with self._open() as connection:
            return _agents(connection.execute(_EXPIRED, (model, now)))

    def close(self) -> None:
        """Write the log into the book and close it. A second close does nothing."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def list(self, model: str | None = None) -> Agents:
        """All agents, or those of one model, the most recently used first."""
        with self._open() as connection:
            query = f"{_SELECT} WHERE ?1 IS NULL OR model = ?1"
            agents = _agents(connection.execute(query, (model,)))
        # Not by SQLite, which would move the keys of all agents through its sorter.
        return sorted(agents, key=lambda agent: (-agent.last_used, agent.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _known(self, name: str, model: str) -> Agent:
        agent = self.find(name, model)
        if agent is None:
            raise AgentUnknown(name)
        return agent

    def _update(self, name: str, model: str, column: str, value: str | float | None) -> None:
        with self._open() as connection:
            done = connection.execute(_CHANGE[column], (value, name, model))
        if not done.rowcount:
            raise AgentUnknown(name)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _book_errors(self._path):
            if self._connection is None:
                raise BookClosed
            yield self._connection


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= _MAX_NAME_CHARACTERS:
        raise ValueError(
            f"an agent's name has 1 to {_MAX_NAME_CHARACTERS} characters, not {len(name)}"
        )


def _row_of(agent: Agent) -> tuple[object, ...]:
    _check_name(agent.name)
    chain = agent.chain
    times = (agent.created, agent.last_used)
    settings = (agent.pinned_at, agent.ttl_s, agent.forked_from)
    use = (agent.uses, agent.hit_tokens)
    return (agent.name, agent.model, chain.keys, chain.tokens, *times, *use, *settings)


def _agents(rows: sqlite3.Cursor) -> Agents:
    return [Agent(row[0], row[1], Chain(row[2], row[3]), *row[4:]) for row in rows]


@contextmanager
def _taken(name: str) -> Iterator[None]:
    """Turns the refusal of a second row of one name into an error that says so."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise NameTaken(name) from error


@contextmanager
def _book_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise BookUnusable(path, str(error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    private_file(path)
    with _book_errors(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _verify(connection, path)
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _verify(connection: sqlite3.Connection, path: Path) -> None:
    """Raises: _BookDamaged, also for damage that SQLite would meet only later."""
    try:
        report = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise _BookDamaged(path, str(error)) from error
        raise
    if report != "ok":
        raise _BookDamaged(path, report)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set the journal up and bring a blank file to the schema; leave a later version alone."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA_VERSION:
        raise BookUnusable(path, f"version {version} is later than {_SCHEMA_VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
    if version < _SCHEMA_VERSION:
        steps = {0: _SCHEMA, 1: _FROM_VERSION_1}.get(version, "")
        connection.executescript(
            f"BEGIN IMMEDIATE; {steps} {_INDEXES} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
        )


def _set_aside(path: Path) -> Path:
    """Move the damaged book away; without its logs, which a blank book would take for its own."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path.replace(path.with_name(path.name + ".damaged"))
