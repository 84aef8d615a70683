"""What the engine raises.

EngineError
|-- BadRequest            the request can never run: the caller's fault
|   `-- ContextExceeded   prompt (or prompt and max_tokens) beyond the model's context
|-- Refused               the request could run, but not now
|   |-- Overloaded        queue or pool full: try again after `retry_after_s`
|   `-- Draining          the engine is shutting down
|-- AgentError            what was asked of an agent cannot be done, and nothing was changed
|   |-- UnknownAgent      there is none of that name
|   |-- AgentExists       there is one of that name already
|   |-- AgentBusy         a request of it runs or waits
|   |-- PinsExhausted     pins would take more of the pool than they may
|   |-- NothingCached     the pool has nothing left of it that could be exported
|   `-- BadArchive        the file is no archive that this engine can import
`-- ModelError            the model cannot be found, read or served
"""

from __future__ import annotations

__all__ = [
    "AgentBusy",
    "AgentError",
    "AgentExists",
    "BadArchive",
    "BadRequest",
    "ContextExceeded",
    "Draining",
    "EngineError",
    "ModelError",
    "NothingCached",
    "Overloaded",
    "PinsExhausted",
    "Refused",
    "UnknownAgent",
]


class EngineError(Exception):
    """Root of what the engine raises."""


class BadRequest(EngineError):
    """The request can never run. `field` names the part of the request at fault."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class ContextExceeded(BadRequest):
    """The prompt and its answer do not fit into the model's context."""

    def __init__(self, limit_tokens: int, asked_tokens: int) -> None:
        super().__init__(
            f"This model's maximum context length is {limit_tokens} tokens. "
            f"However, your messages resulted in {asked_tokens} tokens.",
            field="messages",
        )
        self.limit_tokens = limit_tokens
        self.asked_tokens = asked_tokens


class Refused(EngineError):
    """The request could run, but not now. `retry_after_s` says when to try again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Refused):
    """The queue or the pool is full."""


class Draining(Refused):
    """The engine accepts nothing new, since it is shutting down."""


class AgentError(EngineError):
    """What was asked of an agent cannot be done, and nothing was changed."""


class UnknownAgent(AgentError):
    """There is no agent `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no agent '{name}'.")
        self.name = name


class AgentExists(AgentError):
    """The name `name` is taken."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is an agent '{name}' already.")
        self.name = name


class AgentBusy(AgentError):
    """A request of the agent `name` runs or waits: its end would bring the name back."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The agent '{name}' has a request that runs or waits.")
        self.name = name


class PinsExhausted(AgentError):
    """Pins would take `wanted_blocks`, and may take `limit_blocks`."""

    def __init__(self, wanted_blocks: int, limit_blocks: int) -> None:
        super().__init__(
            f"Pinned agents would take {wanted_blocks} blocks of the pool; "
            f"at most {limit_blocks} can be pinned."
        )
        self.wanted_blocks = wanted_blocks
        self.limit_blocks = limit_blocks


class NothingCached(AgentError):
    """The pool has nothing left of the agent `name` that could be exported."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Nothing of the agent '{name}' is in the cache.")
        self.name = name


class BadArchive(AgentError):
    """The file is no archive that this engine can import. `code` says which kind of wrong."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ModelError(EngineError):
    """The model cannot be found, read or served."""
