from __future__ import annotations

from threading import Event, Thread

import pytest

from dovecote_cache import PoolClosed
from dovecote_cache.handle import SharedHandle


def test_close_waits_for_the_borrowers() -> None:
    """A handle is destroyed only after the last borrower has given it back."""
    handle = SharedHandle("pointer", PoolClosed)
    order: list[str] = []
    closing = Event()

    def close() -> None:
        closing.set()
        handle.close(order.append)

    closer = Thread(target=close)
    with handle.borrowed() as pointer:
        closer.start()
        assert closing.wait(10)
        order.append(f"borrowed {pointer}")
    closer.join(10)
    assert order == ["borrowed pointer", "pointer"]


def test_a_closed_handle_is_not_lent() -> None:
    """After the close a borrower gets the handle's own error; closing again does nothing."""
    handle = SharedHandle("pointer", PoolClosed)
    destroyed: list[str] = []
    handle.close(destroyed.append)
    handle.close(destroyed.append)
    with pytest.raises(PoolClosed), handle.borrowed():
        pass
    assert destroyed == ["pointer"]


def test_a_failed_close_leaves_the_handle_open() -> None:
    """What the destroyer raises passes through, and the handle can still be borrowed."""
    handle = SharedHandle("pointer", PoolClosed)

    def refuse(pointer: str) -> None:
        raise ValueError(pointer)

    with pytest.raises(ValueError, match="pointer"):
        handle.close(refuse)
    with handle.borrowed() as pointer:
        assert pointer == "pointer"


def test_who_waits_for_the_close_wakes_up_with_it() -> None:
    """A wait ends at once when another thread closes, and says which of the two it was."""
    handle = SharedHandle("pointer", PoolClosed)
    assert not handle.wait_closed(0)
    answers: list[bool] = []
    waiter = Thread(target=lambda: answers.append(handle.wait_closed(30)))
    waiter.start()
    handle.close(lambda _: None)
    waiter.join(10)
    assert answers == [True]
    assert handle.wait_closed(0)
