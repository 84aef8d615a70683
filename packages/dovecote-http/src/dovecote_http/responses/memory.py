"""The conversations that responses ended, by response id, so that the next one can go on there.

They are kept in memory alone: those used least recently go when there are too many, and all of them
with the process. What is lost is the text that a client may leave out; the blocks of a conversation
are in the pool like any other's, and are found again by whoever sends it.

Does not know HTTP or the engine.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dovecote_http.responses.body import Item

__all__ = ["Remembered", "ResponseMemory"]

MAX_RESPONSES = 4096
MAX_BYTES = 256 * 2**20
"""Of conversations and responses as JSON, each conversation counted whole."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A response's JSON, and the conversation up to its end, which takes `conversation_bytes`."""

    payload: bytes
    items: tuple[Item, ...]
    conversation_bytes: int

    @property
    def size_bytes(self) -> int:
        """What it counts for. Conversations share items, so the truth is less."""
        return len(self.payload) + self.conversation_bytes


class ResponseMemory:
    """Responses by their owner and id. Event loop only."""

    def __init__(self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, str], Remembered] = OrderedDict()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """What all of them count for."""
        return self._bytes

    def keep(self, owner: str, name: str, response: Remembered) -> None:
        """Remembers a response; others may have to go, or itself if it is too large."""
        self._kept[owner, name] = response
        self._bytes += response.size_bytes
        while self._bytes > self._max_bytes or len(self._kept) > self._max_responses:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.size_bytes

    def find(self, owner: str, name: str) -> Remembered | None:
        """The response, which is used by that."""
        found = self._kept.get((owner, name))
        if found is not None:
            self._kept.move_to_end((owner, name))
        return found

    def forget(self, owner: str, name: str) -> bool:
        """Whether it was there."""
        gone = self._kept.pop((owner, name), None)
        self._bytes -= 0 if gone is None else gone.size_bytes
        return gone is not None
