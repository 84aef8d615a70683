"""Whether new requests are taken, and what those are told who come while they are not.

    open --close--> closed, with a reason --reopen--> open

Closed, nobody who is inside is sent away. A drain for good (SIGTERM) is the engine's own refusal,
and no matter of this door. Does not know how long it will be closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Closure", "ClosureCode", "DoorClosed"]

ClosureCode = Literal["drained", "swapping"]


@dataclass(frozen=True, slots=True)
class Closure:
    """Why no new request is taken, in a sentence for clients, and when to come back."""

    code: ClosureCode
    message: str
    retry_after_s: float


class DoorClosed(Exception):
    """The request came while no new ones are taken; nothing was done for it."""

    def __init__(self, closure: Closure) -> None:
        super().__init__(closure.message)
        self.closure = closure
