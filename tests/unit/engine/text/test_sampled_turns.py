from __future__ import annotations

import re

import pytest

from dovecote_engine.text.sampled_turns import SampledTurn, SampledTurns
from dovecote_engine.text.splices import Spoken, splice

HEADER = "<a>"
SPECIAL = re.compile(r"(?=<[a-z]>)")


def assistant(content: str, *call_ids: str) -> dict[str, object]:
    calls = [{"id": each, "function": {"name": "f"}} for each in call_ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def test_a_turn_is_found_by_its_text_or_by_the_ids_of_its_calls() -> None:
    turns = SampledTurns()
    turns.remember(SampledTurn([1, 2], "Hi"), b"")
    turns.remember(SampledTurn([3], "", "hm", ("c1", "c2")), b"")
    said = turns.find(assistant("Hi"), b"")
    called = turns.find(assistant("whatever", "c1", "c2"), b"")
    assert said is not None
    assert [*said.tokens] == [1, 2]
    assert called is not None
    assert called.reasoning == "hm"
    assert turns.find(assistant("Hi", "c1"), b"") is None
    assert turns.find(assistant("hi"), b"") is None


def test_no_salt_finds_the_turns_of_another() -> None:
    turns = SampledTurns()
    turns.remember(SampledTurn([1], "Hi"), b"one")
    assert turns.find(assistant("Hi"), b"other") is None
    assert turns.find(assistant("Hi"), b"one") is not None


@pytest.mark.parametrize("bounds", ((3, 1000), (1000, 6)))
def test_the_oldest_turns_make_room(bounds: tuple[int, int]) -> None:
    """Whether turns or tokens are too many; one that was found is young again."""
    turns = SampledTurns(*bounds)
    for number in range(3):
        turns.remember(SampledTurn([number, 7], str(number)), b"")
    assert turns.find(assistant("0"), b"") is not None
    turns.remember(SampledTurn([3, 7], "3"), b"")
    known = [turns.find(assistant(str(number)), b"") is not None for number in range(4)]
    assert known == [True, False, True, True]


def test_a_turn_that_comes_again_takes_the_place_of_the_first() -> None:
    turns = SampledTurns(most_tokens=3)
    for _ in range(5):
        turns.remember(SampledTurn([1, 2, 3], "x"), b"")
    assert turns.find(assistant("x"), b"") is not None


def test_nothing_leads_back_to_an_empty_turn() -> None:
    turns = SampledTurns()
    turns.remember(SampledTurn([], "Hi"), b"")
    turns.remember(SampledTurn([1], ""), b"")
    assert turns.find(assistant("Hi"), b"") is None
    assert turns.find(assistant(""), b"") is None


def test_pieces_put_together_say_what_the_prompt_says() -> None:
    prompt = "<u>Hi<e><a>Hi<e><u>Go<e><a>Gone<e><a>"
    pieces = splice(prompt, [Spoken("Hi", [1]), Spoken("Gone", [2])], HEADER, SPECIAL)
    assert pieces == ["<u>Hi<e><a>", [1], "<e><u>Go<e><a>", [2], "<e><a>"]


@pytest.mark.parametrize("text", ("Hi th", "<u>", "there", "Ho"))
def test_only_a_whole_turn_is_replaced(text: str) -> None:
    """A part of one, or another speaker's words, are left alone."""
    prompt = "<u>Ho<e><a>Hi there<e><a>"
    assert splice(prompt, [Spoken(text, [1])], HEADER, SPECIAL) == [prompt]


def test_a_turn_that_is_not_found_does_not_hide_the_next() -> None:
    prompt = "<a>one<e><a>two<e>"
    pieces = splice(prompt, [Spoken("gone", [1]), Spoken("two", [2])], HEADER, SPECIAL)
    assert pieces == ["<a>one<e><a>", [2], "<e>"]
