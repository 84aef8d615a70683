"""Laws of stop strings, against a model that looks at the whole text."""

from __future__ import annotations

from examples import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dovecote_engine.text.answer import AnswerText
from dovecote_engine.text.stop import StopMatcher
from dovecote_engine.text.text_stream import BytesTextStream

# Few characters, so that stops occur; of one to four bytes, so that tokens cut them.
_texts = st.text(alphabet="ab\né🐦", max_size=40)
_stops = st.lists(st.text(alphabet="ab\né🐦", min_size=1, max_size=4), max_size=4)


def _naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text up to the stop that is complete first, the longest of those; was there one."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def _pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    """`whole` cut at these places, characters notwithstanding."""
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {len(whole)})
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


_cuts = st.lists(st.integers(0, 160), max_size=30)


@settings(max_examples=examples(100), deadline=None)
@given(_texts, _stops, _cuts)
@example("aab", ["ab"], [1, 2])
@example("a🐦b", ["🐦b"], [2, 3, 4])
def test_a_stop_never_leaks(text: str, stops: list[str], cuts: list[int]) -> None:
    """However the bytes are cut into tokens: what is shown at any time is a beginning of what the
    model shows in the end, and in the end it is all of it.
    """
    pieces = _pieces(text.encode(), cuts)
    answer = AnswerText(BytesTextStream(pieces.__getitem__), stops)
    wanted, has_stop = _naive(text, stops)
    shown, is_stopped = "", False
    for token in range(len(pieces)):
        piece = answer.push(token)
        shown += piece.text
        assert wanted.startswith(shown)
        is_stopped = piece.is_stopped
        if is_stopped:
            break
    shown += answer.finish().text
    assert (shown, is_stopped) == (wanted, has_stop)


@settings(max_examples=examples(100), deadline=None)
@given(_texts, _stops)
def test_nothing_is_held_back_without_a_reason(text: str, stops: list[str]) -> None:
    """What is held is always the beginning of a stop."""
    matcher = StopMatcher(stops)
    shown = ""
    for end, character in enumerate(text, 1):
        shown += matcher.push(character)
        if matcher.is_stopped:
            return
        held = text[len(shown) : end]
        assert not held or any(stop.startswith(held) for stop in stops)
