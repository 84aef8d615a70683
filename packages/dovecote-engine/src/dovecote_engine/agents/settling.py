"""Puts the ends of chains on disk that nobody went on from for a while.

A chain's short block stays in memory, since the next turn replaces it. On a server that is never
idle it would stay there for good, and a kill would cost it however long ago its turn was. So a mark
is taken every `seconds`, and what is older than the mark before is written, a few blocks a step:

    seconds   0          30          60         90
    a turn ends |--x------|-----------|-- written here: it waited for 30 to 60 seconds

Does not know requests. Engine thread only.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from dovecote_cache import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_cache import Pool

__all__ = ["Settling"]

_log = logging.getLogger(__name__)

# A frame of Llama-3.1-8B in q4 is 1.2 MB and takes half a millisecond.
_BLOCKS_A_STEP: Final = 2


class Settling:
    """One pool's short blocks and their age."""

    def __init__(self, pool: Pool, seconds: float, clock: Callable[[], float]) -> None:
        self._pool, self._seconds, self._clock = pool, seconds, clock
        self._marked_at_s = clock()
        self._old = 0
        self._mark = pool.held_mark()
        self._is_due = False

    def go_on(self) -> None:
        """Writes a little, if it is time to; to be called after each step."""
        if self._is_due:
            self._write()
        elif self._clock() - self._marked_at_s >= self._seconds:
            self._marked_at_s = self._clock()
            self._old, self._mark = self._mark, self._pool.held_mark()
            self._is_due = True

    def _write(self) -> None:
        self._is_due = False
        try:
            self._is_due = self._pool.flush_held(self._old, _BLOCKS_A_STEP) > 0
        except CacheError as error:
            _log.warning("short blocks stay in memory: %s", error)
