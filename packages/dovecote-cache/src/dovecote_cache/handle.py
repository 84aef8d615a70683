"""A C handle that many threads borrow and one closes.

C calls release the GIL, so a `close` on one thread must wait until no other thread is inside a
call with the same handle, and every later call must find it closed. Does not know what it holds.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dovecote_cache.errors import Closed

__all__ = ["SharedHandle"]

T = TypeVar("T")


class SharedHandle(Generic[T]):
    """Open -> closed, once. Borrowers keep it open; any thread may borrow or close."""

    __slots__ = ("_borrowers", "_closed", "_handle", "_idle")

    def __init__(self, handle: T, closed: type[Closed]) -> None:
        self._handle: T | None = handle
        self._closed = closed
        self._borrowers = 0
        self._idle = Condition()

    @contextmanager
    def borrowed(self) -> Iterator[T]:
        """Yield the handle, open until the block ends.

        Raises: the error given at construction if it is closed.
        """
        with self._idle:
            handle = self._handle
            if handle is None:
                raise self._closed
            self._borrowers += 1
        try:
            yield handle
        finally:
            with self._idle:
                self._borrowers -= 1
                self._idle.notify_all()

    def close(self, destroy: Callable[[T], None]) -> None:
        """Wait for the borrowers and destroy the handle; once closed, do nothing.

        Whatever `destroy` raises passes through, and the handle stays open.
        """
        with self._idle:
            self._idle.wait_for(lambda: self._borrowers == 0)
            if self._handle is not None:
                destroy(self._handle)
                self._handle = None
                self._idle.notify_all()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until it is closed, or for so long; whether it is."""
        with self._idle:
            return self._idle.wait_for(lambda: self._handle is None, timeout_s)
