"""The limits of the HTTP service, checked once.

Does not know where they were configured.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

ANY_MODEL = "*"
"""Among the model's aliases: requests are answered whatever model they name."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Limits of the service, all of them positive but for `drain_s`, which may be 0, and what its
    model is called.

    Raises: ValueError that names the field.
    """

    max_body_bytes: int = 32 * 2**20
    """A longer request body is answered with 413."""

    keepalive_s: float = 5.0
    """A stream that has been silent for so long gets a comment. Response headers wait for the
    first token at most so long. Clients give up after minutes, proxies sometimes after 30 s."""

    drain_s: float = 30.0
    """Running requests have so long to finish once shutdown has begun."""

    request_timeout_s: float = 3600.0
    """A request may take so long in all; then it is cancelled and answered with 504."""

    receive_timeout_s: float = 30.0
    """A request's head has to arrive within that time, and its body to keep coming."""

    send_timeout_s: float = 60.0
    """A client that takes nothing of its answer for so long is given up."""

    idle_timeout_s: float = 75.0
    """A connection may be idle for so long between requests (longer than nginx's 60 s)."""

    max_connections: int = 1024
    """Beyond that idle ones are closed, and new ones refused where none is idle."""

    stall_s: float = 120.0
    """Readiness turns 503 when one engine step has taken longer."""

    model_aliases: frozenset[str] = frozenset()
    """Further names under which the served model is asked for; `ANY_MODEL` for all names."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            may_be_0 = field.name == "drain_s"
            if isinstance(value, int | float) and not (value > 0 or (may_be_0 and value == 0)):
                raise ValueError(f"{field.name} must be positive")
