"""What is remembered of responses, and for how long."""

from __future__ import annotations

from dovecote_http.responses.memory import Remembered, ResponseMemory


def response(size_bytes: int) -> Remembered:
    return Remembered(b"x" * size_bytes, (), 0)


def test_the_least_recently_used_goes_first() -> None:
    """Having it again is a use."""
    memory = ResponseMemory(max_responses=2)
    memory.keep("", "a", response(1))
    memory.keep("", "b", response(1))
    assert memory.find("", "a")
    memory.keep("", "c", response(1))
    assert [name for name in "abc" if memory.find("", name)] == ["a", "c"]


def test_bytes_are_bounded_whatever_the_number() -> None:
    """Payload and conversation both count; one that is too large is not kept at all."""
    memory = ResponseMemory(max_bytes=10)
    memory.keep("", "a", Remembered(b"xx", (), 4))
    memory.keep("", "b", response(5))
    assert (memory.find("", "a"), memory.size_bytes) == (None, 5)
    memory.keep("", "c", response(11))
    assert (memory.find("", "c"), memory.size_bytes) == (None, 0)


def test_one_owner_s_responses_are_nobody_else_s() -> None:
    memory = ResponseMemory()
    memory.keep("@acme/", "a", response(3))
    assert memory.find("@other/", "a") is None
    assert not memory.forget("@other/", "a")
    assert memory.forget("@acme/", "a")
    assert memory.size_bytes == 0
