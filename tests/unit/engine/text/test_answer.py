from __future__ import annotations

import pytest

from dovecote_engine.request import RankedToken, TokenLogprobs
from dovecote_engine.text.answer import AnswerText, Piece
from dovecote_engine.text.text_stream import BytesTextStream

BIRD = "🐦".encode()


def _told(content: bytes) -> TokenLogprobs:
    return TokenLogprobs(RankedToken(0, content, -1.0), ())


def _answer(pieces: list[bytes], *stops: str) -> AnswerText:
    """An answer whose token ids are the places in `pieces`."""
    return AnswerText(BytesTextStream(pieces.__getitem__), stops)


def _push_all(pieces: list[bytes], *stops: str) -> list[Piece]:
    answer = _answer(pieces, *stops)
    shown = []
    for token, content in enumerate(pieces):
        shown.append(answer.push(token, _told(content)))
        if shown[-1].is_stopped:
            break
    return [*shown, answer.finish()]


def _contents(piece: Piece) -> list[bytes]:
    return [each.chosen.content for each in piece.logprobs]


def test_log_probabilities_come_with_the_first_character_of_their_token() -> None:
    """Those of the parts of a character come together, when it is complete."""
    shown = _push_all([b"a", BIRD[:1], BIRD[1:3], BIRD[3:] + b"b"])
    assert [piece.text for piece in shown] == ["a", "", "", "🐦b", ""]
    assert [len(piece.logprobs) for piece in shown] == [1, 0, 0, 3, 0]


def test_log_probabilities_wait_with_their_text() -> None:
    """What a stop might swallow is not told either."""
    shown = _push_all([b"a", b"E", b"N", b"X"], "END")
    assert [piece.text for piece in shown] == ["a", "", "", "ENX", ""]
    assert [_contents(piece) for piece in shown] == [[b"a"], [], [], [b"E", b"N", b"X"], []]


def test_tokens_of_a_stop_are_not_told() -> None:
    """A token of which a part is shown is told; those that are cut off whole are not."""
    shown = _push_all([b"a", b"bE", b"N", b"Dx", b"more"], "END")
    assert [piece.text for piece in shown] == ["a", "b", "", "", ""]
    assert [_contents(piece) for piece in shown] == [[b"a"], [b"bE"], [], [], []]
    assert shown[3].is_stopped


def test_the_end_tells_what_is_left() -> None:
    """Half a character becomes U+FFFD, and a token without text is told all the same."""
    shown = _push_all([b"a", BIRD[:2], b""])
    assert (shown[-1].text, _contents(shown[-1])) == ("\ufffd", [BIRD[:2], b""])


def test_a_stop_may_be_complete_at_the_end_only() -> None:
    """What the detokenizer still held may complete it."""
    answer = _answer([b"ab", BIRD[:2]], "b\ufffd")
    assert answer.push(0) == Piece("a")
    assert answer.push(1) == Piece()
    assert answer.finish() == Piece(is_stopped=True)


@pytest.mark.parametrize("stops", ((), ("zz",)))
def test_without_a_stop_the_text_is_whole(stops: tuple[str, ...]) -> None:
    shown = _push_all([b"fiz", b"z", b" ", b"buz"], *stops)
    assert "".join(piece.text for piece in shown) == ("fi" if stops else "fizz buz")
