"""Whose a request is, and what that makes of the names and salts in it.

    client's word        engine's word, tenant `acme`       the operator
    agent   planner      @acme/planner                      planner
    salt    s            0xFF acme 0x00 s (or s: shared)    s

T1 No tenant's agent has a name that another tenant can write: all that a tenant writes comes behind
   `@NAME/`, and NAME has no slash.
T2 No tenant's salt is one that another can write: 0xFF occurs in no UTF-8, NUL in no NAME.
T3 The operator's words are the engine's: it can name, and so continue, every tenant's agent.

Does not know keys or HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dovecote_http.errors import invalid

if TYPE_CHECKING:
    from dovecote_engine.request import Request

__all__ = ["OPERATOR", "Tenant"]

LONGEST_NAME = 256
"""Characters of an agent's name in the engine."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One who asks. `name` None: the operator, to whom everything belongs."""

    name: str | None
    shares_prefixes: bool = False

    @property
    def is_admin(self) -> bool:
        """Sees every agent and request, and may make administrative calls."""
        return self.name is None

    @property
    def scope(self) -> str:
        """What the names of its agents begin with in the engine."""
        return "" if self.name is None else f"@{self.name}/"

    @property
    def longest_name(self) -> int:
        """How many characters the name of an agent may have."""
        return LONGEST_NAME - len(self.scope)

    def agent(self, name: str) -> str:
        """The engine's name of its agent. Raises: ApiError (400) if that would be too long."""
        if len(name) > self.longest_name:
            raise invalid(
                f"An agent's name has at most {self.longest_name} characters here.", "name"
            )
        return self.scope + name

    def salt(self, given: bytes) -> bytes:
        """The engine's salt for the client's own."""
        if self.name is None or self.shares_prefixes:
            return given
        return b"\xff" + self.name.encode() + b"\0" + given

    def own(self, request: Request) -> Request:
        """The request as the tenant's. Raises: ApiError (400), as `agent`."""
        agent = None if request.agent is None else self.agent(request.agent)
        return replace(request, agent=agent, salt=self.salt(request.salt))


OPERATOR = Tenant(None)
"""Who holds an admin key; where no keys are asked for, everybody."""
