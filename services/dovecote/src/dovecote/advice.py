"""What to do about a server that did not start, in the words of its options.

Does not know where in the start it failed: the error says what, this says what now.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from dovecote_cache import BookUnusable, BudgetTooSmall, PoolBusy, PoolIOError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["advice_on"]

_ELSEWHERE: Final = "use another --cache-dir, or --memory-only"
_FULL: Final = f"free disk space, lower --pool-size, {_ELSEWHERE}"
_CLOSED: Final = f"make the cache directory writable for this user, {_ELSEWHERE}"
_BY_ERRNO: Final[Mapping[int, str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EIO: f"the disk does not work as it should: {_ELSEWHERE}",
    errno.ENOMEM: "lower --pool-size",
    errno.EADDRINUSE: "choose another --port, or stop who has it",
    errno.EADDRNOTAVAIL: "choose another --host",
}


def advice_on(error: BaseException) -> str:
    """One clause a person can act on; empty where the error says all there is to say."""
    match error:
        case PoolBusy():
            return f"stop the other server, {_ELSEWHERE}"
        case BudgetTooSmall():
            return f"raise --disk-budget, remove other files from the cache directory, {_ELSEWHERE}"
        case BookUnusable():
            return f"move that file away, {_ELSEWHERE}"
        case MemoryError():
            return _BY_ERRNO[errno.ENOMEM]
        case PoolIOError(errno=int(number)) | OSError(errno=int(number)) if number in _BY_ERRNO:
            return _BY_ERRNO[number]
    return advice_on(error.__cause__) if error.__cause__ is not None else ""
