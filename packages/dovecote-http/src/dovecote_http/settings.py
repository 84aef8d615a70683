"""The limits of the HTTP service, checked once.

Does not know where they were configured.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Limits of the service. All are positive.

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

    stall_s: float = 120.0
    """Readiness turns 503 when one engine step has taken longer."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be positive")
