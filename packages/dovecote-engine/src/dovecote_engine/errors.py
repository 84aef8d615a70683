"""What the engine raises.

EngineError
|-- BadRequest            the request can never run: the caller's fault
|   `-- ContextExceeded   prompt (or prompt and max_tokens) beyond the model's context
|-- Refused               the request could run, but not now
|   |-- Overloaded        queue or pool full: try again after `retry_after_s`
|   `-- Draining          the engine is shutting down
`-- ModelError            the model cannot be found, read or served
"""

from __future__ import annotations

__all__ = [
    "BadRequest",
    "ContextExceeded",
    "Draining",
    "EngineError",
    "ModelError",
    "Overloaded",
    "Refused",
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


class ModelError(EngineError):
    """The model cannot be found, read or served."""
