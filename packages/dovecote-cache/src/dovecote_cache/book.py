"""Which agent is at which chain: names and keys, never tokens or text.

Content decides what is shared, so nothing is wrong if the book is lost: a name only serves to list,
retain and resume. Names are data here. They are stored as given and never become paths.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from dovecote_cache.errors import BookClosed, BookUnusable
from dovecote_cache.private import private_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["Agent", "AgentBook"]

_SCHEMA_VERSION: Final = 1
_MAX_NAME_CHARACTERS: Final = 256
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS agents (
    name      TEXT NOT NULL,
    model     TEXT NOT NULL,
    tip       BLOB NOT NULL,      -- key of the chain's last block
    tokens    INTEGER NOT NULL,
    created   REAL NOT NULL,      -- unix seconds
    last_used REAL NOT NULL,
    PRIMARY KEY (name, model)
) STRICT, WITHOUT ROWID;
"""
_RECORD: Final = """
INSERT INTO agents (name, model, tip, tokens, created, last_used) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name, model) DO UPDATE SET
    tip = excluded.tip, tokens = excluded.tokens, last_used = excluded.last_used
"""
_SELECT: Final = "SELECT name, model, tip, tokens, created, last_used FROM agents"


@dataclass(frozen=True, slots=True)
class Agent:
    """A name over a chain of one model. Times are unix seconds."""

    name: str
    model: str
    tip: bytes
    tokens: int
    created: float
    last_used: float


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

    @property
    def set_aside(self) -> Path | None:
        """Where `open` moved a damaged book to; None if the book was sound."""
        return self._set_aside

    def record(self, name: str, model: str, tip: bytes, tokens: int, now: float) -> None:
        """Point the agent at the chain that ends in `tip`; the agent is created if need be.

        Raises: ValueError if the name is empty or longer than 256 characters.
        """
        if not 1 <= len(name) <= _MAX_NAME_CHARACTERS:
            raise ValueError(
                f"an agent's name has 1 to {_MAX_NAME_CHARACTERS} characters, not {len(name)}"
            )
        with self._open() as connection:
            connection.execute(_RECORD, (name, model, tip, tokens, now, now))

    def find(self, name: str, model: str) -> Agent | None:
        """The agent of that name under that model, None if there is none."""
        with self._open() as connection:
            rows = connection.execute(f"{_SELECT} WHERE name = ? AND model = ?", (name, model))
            row = rows.fetchone()
        return None if row is None else Agent(*row)

    def close(self) -> None:
        """Write the log into the book and close it. A second close does nothing."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def list(self, model: str | None = None) -> Agents:
        """All agents, or those of one model, the most recently used first."""
        with self._open() as connection:
            rows = connection.execute(
                f"{_SELECT} WHERE ?1 IS NULL OR model = ?1 ORDER BY last_used DESC, name", (model,)
            ).fetchall()
        return [Agent(*row) for row in rows]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _book_errors(self._path):
            if self._connection is None:
                raise BookClosed
            yield self._connection


@contextmanager
def _book_errors(path: Path) -> Iterator[None]:
    try:
        yield
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
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
        )


def _set_aside(path: Path) -> Path:
    """Move the damaged book away; without its logs, which a blank book would take for its own."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path.replace(path.with_name(path.name + ".damaged"))
