from __future__ import annotations

import pytest

from dovecote_engine.text.stop import StopMatcher


def _shown(stops: tuple[str, ...], *pieces: str) -> list[str]:
    """What each piece lets through, and what the end does."""
    matcher = StopMatcher(stops)
    return [*(matcher.push(piece) for piece in pieces), matcher.finish()]


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    (
        ((), ("ab", "c"), ["ab", "c", ""]),
        (("END",), ("one EN", "D two", "three"), ["one ", "", "", ""]),
        (("END",), ("one EN", "E", "ND"), ["one ", "EN", "", ""]),
        (("END",), ("one EN",), ["one ", "EN"]),
        (("\n\n",), ("a\n", "b\n", "\nc"), ["a", "\nb", "", ""]),
        (("aab",), ("aaa", "ab"), ["a", "a", ""]),
        (("🐦",), ("a🐦b",), ["a", ""]),
        (("é!",), ("né", "e", "é", "!"), ["n", "ée", "", "", ""]),
        (("bc", "abcd"), ("abcd",), ["a", ""]),
        (("c", "abc"), ("xabc",), ["x", ""]),
        (("stop",), ("stop",), ["", ""]),
    ),
)
def test_a_stop_and_its_beginnings_are_held_back(
    stops: tuple[str, ...], pieces: tuple[str, ...], shown: list[str]
) -> None:
    """What may be the beginning of a stop waits until it is clear that it is not one.

    Of two the first to be complete counts; of two complete together, the longer.
    """
    assert _shown(stops, *pieces) == shown


def test_it_says_that_it_has_stopped() -> None:
    """At the very piece that completes the stop, and from then on."""
    matcher = StopMatcher(("ab",))
    told = [(matcher.push(piece), matcher.is_stopped) for piece in ("xa", "b", "more")]
    assert told == [("x", False), ("", True), ("", True)]


@pytest.mark.parametrize(
    ("stops", "text", "stopped_by"),
    ((("b", "c"), "ac", "c"), (("bc", "abc"), "abc", "abc"), (("b",), "a", None), ((), "a", None)),
)
def test_it_says_which_stop_it_was(
    stops: tuple[str, ...], text: str, stopped_by: str | None
) -> None:
    """The first to be complete, and the longest of those complete together."""
    matcher = StopMatcher(stops)
    matcher.push(text)
    assert matcher.stopped_by == stopped_by


def test_a_long_stop_costs_each_character_once() -> None:
    """Text that keeps almost matching is looked at once: 200,000 characters within the limit."""
    matcher = StopMatcher(("a" * 5000 + "b",))
    shown = "".join(matcher.push("a" * 100) for _ in range(2000))
    assert len(shown) == 200_000 - 5000
