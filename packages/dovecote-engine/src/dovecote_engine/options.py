"""What may be set about the engine, with the reason for each default.

Does not know where the settings come from.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Limits of the engine. Raises: ValueError if one of them leaves no room to work."""

    max_rows: int = 8
    """Sequences that run at once; the skinny matrix kernels are made for up to 8."""
    max_waiting: int = 64
    """Requests that wait for a row; one more is refused."""
    slab_bytes: int = 4 * _GIB
    """Memory for the K and V of the running rows."""
    default_max_tokens: int = 1024
    """What is reserved for the answer of a request that states no `max_tokens`."""
    chunk_seconds: float = 0.25
    """How long a piece of a prompt may keep the running rows waiting."""
    max_chunk_tokens: int = 512
    """The longest piece of a prompt, when nobody waits: a cancel is noticed between pieces."""
    restore_seconds: float = 0.05
    """How long a piece of a restore may keep the running rows waiting."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_waiting", "slab_bytes", "default_max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.max_chunk_tokens < 1:
            raise ValueError("max_chunk_tokens must be at least 1")
        if self.chunk_seconds <= 0 or self.restore_seconds <= 0:
            raise ValueError("chunk_seconds and restore_seconds must be positive")
