"""The agents by name: what they hold, and what may be done with them while others run.

An agent is a row in the book over a chain in the pool. Everything here is about retention: what a
prompt finds is decided by its tokens, whoever asks.

    own     blocks of an agent's chain on which nobody else's hangs: freed when it is deleted
    shared  the others: they stay for those who need them
    pinned  blocks that are evicted only when nothing else is left. They take at most a fraction
            of the pool, and they are no promise: a running request comes first

A running agent may be looked at, forked (as it was after its last turn), pinned and exported; it is
not renamed or deleted, since its turn would only bring the name back.

Does not know requests, the slab or HTTP. Any thread.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager, suppress
from threading import Condition, RLock
from typing import TYPE_CHECKING

from dovecote_cache import (
    KEY_BYTES,
    Agent,
    AgentUnknown,
    Archive,
    ArchiveMismatch,
    ArchiveUnusable,
    Chain,
    Manifest,
    NameTaken,
    PoolExhausted,
    PoolIOError,
    Stores,
    write_archive,
)
from dovecote_engine.agents.agent import AgentView
from dovecote_engine.agents.forecast import Forecast, all_matched, forecast
from dovecote_engine.agents.origin import NEW, Origin, origin_of
from dovecote_engine.agents.runs import Run, runs_of
from dovecote_engine.agents.sharing import shared_blocks, shared_blocks_of_all
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dovecote_cache import AgentBook, ChainStats, Checkpoints, Lease, Pool
    from dovecote_engine.agents.agent import AgentChanges

Rows = list[Agent]
Views = list[AgentView]
Runs = list[Run]
Found = list["ChainStats"]

_MAX_NAME_CHARACTERS = 256
_RETRY_S = 5.0


class Agents:
    """The agents of one model. `is_busy` tells whether a request of that agent runs or waits.

    `resumable` and `checkpoints`, where the model has recurrent state, may be set before the first
    request: see `forecast` and `write_archive`.
    """

    def __init__(
        self,
        pool: Pool,
        book: AgentBook | None,
        model_id: str,
        is_busy: Callable[[str], bool],
        pin_limit: float,
    ) -> None:
        """Pins what the book says is pinned. Raises: CacheError."""
        self._pool = pool
        self._book = book
        self._model_id = model_id
        self._is_busy = is_busy
        self.resumable: Callable[[Lease, int], int] = all_matched
        self.checkpoints: Checkpoints | None = None
        self._limit_blocks = int(pool.frames * pin_limit)
        self._change = RLock()
        self._idle = Condition()
        self._working = 0
        self._is_closed = False
        self._pinned: set[str] = set()
        self._apply_pins()

    # ---- looking

    def list(self) -> Views:
        """All agents, the most recently used first."""
        self.expire()
        agents = self._all()
        return self._views(agents, self._look_all(agents))

    def survey(self) -> tuple[Views, Runs]:
        """All agents as `list` has them, and which of them share which cached blocks."""
        self.expire()
        agents = self._all()
        found = self._look_all(agents)
        cached = map(_cached, agents, found)
        names = (agent.name for agent in agents)
        return self._views(agents, found), runs_of(zip(names, cached, strict=True))

    def get(self, name: str) -> AgentView:
        """One agent. Raises: UnknownAgent."""
        self.expire()
        return self._look(name)

    # ---- changing

    def fork(self, name: str, new_name: str) -> AgentView:
        """A new agent over the same chain: one row in the book, no block in the pool.

        It inherits neither pin nor time to live. Raises: UnknownAgent, AgentExists, BadRequest.
        """
        _check_name(new_name)
        with self._change, self._named():
            self._known(name)
            self._check_free(new_name)
            self._open_book().fork(name, self._model_id, new_name, time.time())
            return self._look(new_name)

    def change(self, name: str, changes: AgentChanges) -> AgentView:
        """Changes all that is asked for, or nothing.

        Raises: UnknownAgent, BadRequest; AgentExists if the new name is taken; AgentBusy if it is
        to be renamed while it runs; PinsExhausted if pins would take more of the pool than they
        may.
        """
        with self._change, self._named():
            agent = self._known(name)
            self._check_changes(name, changes)
            if changes.pinned is not None:
                self._set_pinned(agent, pinned=changes.pinned)
            if changes.ttl_s is not None:
                ttl_s = None if changes.ttl_s == math.inf else changes.ttl_s
                self._open_book().set_ttl(name, self._model_id, ttl_s)
            if changes.name is not None:
                self._open_book().rename(name, self._model_id, changes.name)
                self._note_pinned()
            return self._look(changes.name or name)

    def delete(self, name: str) -> int:
        """Forgets the agent and frees its own blocks; their number.

        What others share stays, and so do blocks under a lease. The bytes stay in the pool's file
        until other blocks take their place. Raises: UnknownAgent, AgentBusy.
        """
        with self._change, self._named():
            self._known(name)
            self._check_idle(name)
            return self._forget(name)

    def expire(self) -> int:
        """Deletes the agents whose time to live is over, but for running ones; how many."""
        if self._book is None:
            return 0
        with self._change:
            over = self._book.expired(self._model_id, time.time())
            idle = [agent.name for agent in over if not self._is_busy(agent.name)]
            for name in idle:
                self._forget(name)
        return len(idle)

    def origin(self, name: str, prompt: Chain, found_tokens: int, most_tokens: int) -> Origin:
        """Where what was found of a prompt came from, see `origin_of`. Raises: CacheError."""
        known = None if self._book is None else self._book.find(name, self._model_id)
        if known is None:
            return NEW
        return origin_of(known.chain, prompt, found_tokens, most_tokens, self._pool)

    def forecast(self, name: str | None, prompt: tuple[int, ...], salt: bytes) -> Forecast:
        """What a prompt of that agent would find, see `forecast`; nothing is computed.

        Raises: Overloaded if running requests need all of the pool; Draining.
        """
        with self._work(), _room():
            agent = None
            if name is not None and self._book is not None:
                agent = self._book.find(name, self._model_id)
            history = None if agent is None else agent.chain
            return forecast(self._pool, prompt, salt, history, self.resumable)

    def note_turn(self, name: str, chain: Chain, hit_tokens: int) -> None:
        """The agent is at the chain's end now. Raises: CacheError."""
        if self._book is None:
            return
        with self._change:
            known = self._book.find(name, self._model_id)
            if known is not None and _begins(known.chain, chain):
                chain = known.chain  # the turn ended before it came to where the last one did
            self._book.record(name, self._model_id, chain, time.time(), hit_tokens)
            if name in self._pinned:
                self._apply_pins()

    # ---- taking along

    def export(self, name: str, path: Path, shown_name: str | None = None) -> int:
        """Writes the agent with what is cached of its chain, recurrent states included, to `path`
        (0600, all or nothing).

        The archive calls it by `shown_name`, if that is given. Returns its tokens.
        Raises: UnknownAgent; NothingCached; Overloaded if running requests need all of the pool;
        Draining if the engine closes meanwhile; OSError.
        """
        with self._work():
            agent = self._known(name)
            pinned = agent.pinned_at is not None
            manifest = Manifest(shown_name or name, agent.model, agent.created, pinned, agent.ttl_s)
            tokens = self._write_archive(path, agent.chain, manifest)
            if not tokens:
                path.unlink()
                raise NothingCached(name)
            return tokens

    def import_(
        self, path: Path, name: str | None = None, scope: str = "", salt: bytes | None = None
    ) -> AgentView:
        """Brings an archive's agent in, under its own name or another, behind `scope`.

        Its chain hangs where it was, or under `salt`: who may not write to the chains of others
        has to be given one.
        The whole file is verified first; the agent is listed once all of its blocks are there, and
        as many of its recurrent states as there is room for. What it says about K, V and states is
        believed: import only what you would run. If pins are used up it comes without its pin.
        Raises: BadArchive; AgentExists, AgentBusy or BadRequest for its
        name; Overloaded if there is no room; Draining if the engine closes meanwhile; OSError.
        """
        with self._work(), self._named(), _room(), _sound_archive(), Archive(path) as archive:
            archive.verify(self._stores, self._check_open)
            chosen = scope + (archive.manifest.name if name is None else name)
            _check_name(chosen)
            self._check_idle(chosen)
            self._check_free(chosen)
            with self._pool.lease(archive.tokens) as lease:
                chain = archive.copy_into(lease, self._check_open, salt)
                if self.checkpoints is not None:
                    archive.copy_states(self.checkpoints, chain, self._check_open)
                return self._add_imported(chosen, chain, archive.manifest)

    def close(self) -> None:
        """Ends exports and imports, and waits until they have let go of the pool."""
        with self._idle:
            self._is_closed = True
            self._idle.wait_for(lambda: not self._working)

    # ---- private

    @property
    def _stores(self) -> Stores:
        return Stores(self._pool, self.checkpoints)

    def _all(self) -> Rows:
        return [] if self._book is None else self._book.list(self._model_id)

    def _open_book(self) -> AgentBook:
        assert self._book is not None  # noqa: S101 - `_known` found an agent in it
        return self._book

    def _known(self, name: str) -> Agent:
        agent = None if self._book is None else self._book.find(name, self._model_id)
        if agent is None:
            raise UnknownAgent(name)
        return agent

    def _check_idle(self, name: str) -> None:
        if self._is_busy(name):
            raise AgentBusy(name)

    def _check_free(self, name: str) -> None:
        if self._book is None or self._book.find(name, self._model_id) is not None:
            raise AgentExists(name)

    def _check_changes(self, name: str, changes: AgentChanges) -> None:
        if changes.ttl_s is not None and not changes.ttl_s > 0:
            raise BadRequest("'ttl_s' must be more than 0.", "ttl_s")
        if changes.name is not None and changes.name != name:
            _check_name(changes.name)
            self._check_idle(name)
            self._check_idle(changes.name)
            self._check_free(changes.name)

    def _look(self, name: str) -> AgentView:
        agent = self._known(name)
        shared = shared_blocks(agent, self._open_book(), self._pool)
        return self._view(agent, self._pool.look(agent.chain), shared)

    def _look_all(self, agents: Rows) -> Found:
        return self._pool.look_all([agent.chain for agent in agents])

    def _views(self, agents: Rows, found: Found) -> Views:
        shared = shared_blocks_of_all(agents, found)
        return [self._view(*seen) for seen in zip(agents, found, shared, strict=True)]

    def _view(self, agent: Agent, found: ChainStats, shared_blocks: int) -> AgentView:
        frame_bytes = self._pool.frame_bytes
        return AgentView(
            name=agent.name,
            model=agent.model,
            tokens=agent.tokens,
            cached_tokens=found.tokens,
            bytes=found.blocks * frame_bytes,
            own_bytes=found.own_beyond(shared_blocks) * frame_bytes,
            pinned_bytes=found.pinned_blocks * frame_bytes,
            created=agent.created,
            last_used=agent.last_used,
            uses=agent.uses,
            hit_tokens=agent.hit_tokens,
            pinned=agent.pinned_at is not None,
            ttl_s=agent.ttl_s,
            expires=agent.expires,
            forked_from=agent.forked_from,
            busy=self._is_busy(agent.name),
        )

    def _forget(self, name: str) -> int:
        shared = shared_blocks(self._known(name), self._open_book(), self._pool)
        agent = self._open_book().delete(name, self._model_id)
        if agent.pinned_at is not None:
            self._apply_pins()
        return self._pool.drop(agent.chain, shared)

    def _set_pinned(self, agent: Agent, *, pinned: bool) -> None:
        if pinned == (agent.pinned_at is not None):
            return
        chains = [other.chain for other in self._all_pinned() if other.name != agent.name]
        if pinned:
            wanted = self._pool.pin([*chains, agent.chain], self._limit_blocks)
            if wanted > self._limit_blocks:
                self._pool.pin(chains, self._limit_blocks)
                raise PinsExhausted(wanted, self._limit_blocks)
        self._open_book().set_pinned(agent.name, self._model_id, time.time() if pinned else None)
        self._apply_pins()

    def _all_pinned(self) -> Rows:
        """Those who were pinned first come first: growth of a later one takes nothing from them."""
        return [] if self._book is None else self._book.pinned(self._model_id)

    def _apply_pins(self) -> None:
        pinned = self._all_pinned()
        self._pinned = {agent.name for agent in pinned}
        self._pool.pin([agent.chain for agent in pinned], self._limit_blocks)

    def _note_pinned(self) -> None:
        self._pinned = {agent.name for agent in self._all_pinned()}

    def _write_archive(self, path: Path, chain: Chain, manifest: Manifest) -> int:
        with _room():
            while True:
                try:
                    return write_archive(path, self._stores, chain, manifest, self._check_open)
                except PoolIOError as error:
                    if error.errno:
                        raise
                    # A damaged block was dropped; what is left of the chain is shorter by it.

    def _add_imported(self, name: str, chain: Chain, manifest: Manifest) -> AgentView:
        now = time.time()
        agent = Agent(
            name, self._model_id, chain, manifest.created, now, uses=0, ttl_s=manifest.ttl_s
        )
        with self._change:
            if self._book is None:
                raise AgentExists(name)
            self._book.add(agent)
            if manifest.pinned:
                with suppress(PinsExhausted):
                    self._set_pinned(agent, pinned=True)
            return self._look(name)

    def _check_open(self) -> None:
        if self._is_closed:
            raise Draining("The server is shutting down.", _RETRY_S)

    @contextmanager
    def _work(self) -> Iterator[None]:
        """Long work with a lease: `close` waits for it, and it asks `_check_open` on its way."""
        with self._idle:
            self._check_open()
            self._working += 1
        try:
            yield
        finally:
            with self._idle:
                self._working -= 1
                self._idle.notify_all()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """The book's refusals in the engine's words: another process may share the book."""
        try:
            yield
        except AgentUnknown as error:
            raise UnknownAgent(error.name) from error
        except NameTaken as error:
            raise AgentExists(error.name) from error


def _cached(agent: Agent, found: ChainStats) -> Chain:
    """What is left of the chain, without a longer last block that is somebody else's."""
    blocks = found.blocks - found.superseded
    return Chain(agent.chain.keys[: blocks * KEY_BYTES], found.tokens)


def _begins(chain: Chain, start: Chain) -> bool:
    return start.tokens <= chain.tokens and start.blocks_in_common(chain) == start.blocks


def _check_name(name: str) -> None:
    if not (1 <= len(name) <= _MAX_NAME_CHARACTERS and name.isprintable()):
        raise BadRequest(
            f"'name' must be 1 to {_MAX_NAME_CHARACTERS} printable characters.", "name"
        )


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except PoolExhausted as error:
        raise Overloaded("The cache is in use.", _RETRY_S) from error


@contextmanager
def _sound_archive() -> Iterator[None]:
    try:
        yield
    except ArchiveMismatch as error:
        raise BadArchive(
            "The archive was made for another model, codec or block size.", "archive_mismatch"
        ) from error
    except ArchiveUnusable as error:
        raise BadArchive(f"The archive cannot be read: {error.reason}.", "bad_archive") from error
