"""The agents as one tenant sees them: its own, by the names that it gave them.

Does not know the book, the pool or HTTP.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dovecote_engine.errors import AgentBusy, AgentExists, NothingCached, UnknownAgent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dovecote_engine.agents.agent import AgentChanges, AgentView
    from dovecote_http.access.tenants import Tenant
    from dovecote_http.bridge.engine_like import AgentsLike

__all__ = ["TenantAgents"]

Views = list["AgentView"]


class TenantAgents:
    """Any thread. What each call raises stands at `dovecote_engine.Agents`, told in the tenant's
    names; ApiError (400) besides for names that are too long.
    """

    def __init__(self, agents: AgentsLike, tenant: Tenant) -> None:
        self._agents = agents
        self._tenant = tenant

    def list(self) -> Views:
        """The tenant's agents, the most recently used first."""
        scope = self._tenant.scope
        return [self._seen(view) for view in self._agents.list() if view.name.startswith(scope)]

    def get(self, name: str) -> AgentView:
        """One of them."""
        with self._named(name) as known:
            return self._seen(self._agents.get(known))

    def fork(self, name: str, new_name: str) -> AgentView:
        """A new one over the same chain."""
        with self._named(name) as known:
            return self._seen(self._agents.fork(known, self._chosen(new_name)))

    def change(self, name: str, changes: AgentChanges) -> AgentView:
        """Changes all that is asked for, or nothing."""
        if changes.name is not None:
            changes = replace(changes, name=self._chosen(changes.name))
        with self._named(name) as known:
            return self._seen(self._agents.change(known, changes))

    def delete(self, name: str) -> int:
        """Forgets it; the blocks that this freed."""
        with self._named(name) as known:
            return self._agents.delete(known)

    def export(self, name: str, path: Path) -> int:
        """Writes its archive; the tokens in it."""
        with self._named(name) as known:
            return self._agents.export(known, path, name)

    def import_(self, path: Path, name: str | None, salt: bytes | None) -> AgentView:
        """Brings an archive's agent in, its chain under the tenant's salt.

        The operator's may stay where it was (`salt` None).
        """
        if salt is None and not self._tenant.is_admin:
            salt = b""
        chosen = None if name is None else self._checked(name)
        own_salt = None if salt is None else self._tenant.salt(salt)
        with self._named(None):
            return self._seen(self._agents.import_(path, chosen, self._tenant.scope, own_salt))

    def _checked(self, name: str) -> str:
        self._tenant.agent(name)
        return name

    def _chosen(self, name: str) -> str:
        """The engine's name for one that a client chose; what is wrong with it stays wrong."""
        return self._tenant.agent(name) if name else name

    def _seen(self, view: AgentView) -> AgentView:
        scope = self._tenant.scope
        parent = view.forked_from
        if parent is not None:
            parent = parent.removeprefix(scope) if parent.startswith(scope) else None
        return replace(view, name=view.name.removeprefix(scope), forked_from=parent)

    @contextmanager
    def _named(self, name: str | None) -> Iterator[str]:
        """The engine's name of an agent; refusals inside are told in the tenant's words."""
        scope = self._tenant.scope
        if name is not None and len(name) > self._tenant.longest_name:
            raise UnknownAgent(name)
        try:
            yield scope + (name or "")
        except (UnknownAgent, AgentExists, AgentBusy, NothingCached) as error:
            raise type(error)(error.name.removeprefix(scope)) from error
