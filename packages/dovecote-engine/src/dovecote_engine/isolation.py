"""The engine's one door for exceptions: what fails for one row must not end the others.

Everything that the engine does on behalf of a single request, and the batched forward, passes
through `isolated`. Elsewhere an exception is a bug and travels up.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Fault", "isolated"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, in words that may be shown to the caller: no prompt text, no paths."""

    message: str


def isolated(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Fault:
    """What `work` returns, or a fault in place of the exception that it raised, which is logged."""
    try:
        return work(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the one place for it
        _log.exception("isolated failure in %s", getattr(work, "__qualname__", work))
        return Fault(f"internal error: {type(error).__name__}")
