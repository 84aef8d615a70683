from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dovecote_engine.request import ToolCallDelta
from dovecote_engine.text.sections import Section, SectionReader, Tags
from dovecote_engine.text.tool_calls import JSON_CALLS, CallFormat

THINK = ("<think>", "</think>")
BOTH = Tags(THINK, JSON_CALLS)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": [1, "}"], "b": "\\"{"}}\n</tool_call>'
ARGUMENTS = '{"a": [1, "}"], "b": "\\"{"}'


def read(tags: Tags, *texts: str) -> list[Section]:
    reader = SectionReader(tags)
    return [*(reader.push(text) for text in texts), reader.finish()]


def joined(sections: list[Section]) -> Section:
    whole = Section()
    for each in sections:
        whole += each
    return whole


def calls(section: Section) -> list[tuple[str, str]]:
    """Names and whole arguments; indices are dense and only first fragments have id and name."""
    made: list[tuple[str, str]] = []
    for delta in section.tool_calls:
        if delta.index == len(made):
            assert delta.id is not None
            assert delta.name is not None
            made.append((delta.name, ""))
        else:
            assert (delta.id, delta.name) == (None, None)
        name, arguments = made[delta.index]
        made[delta.index] = (name, arguments + delta.arguments)
    return made


@pytest.mark.parametrize(
    ("text", "shown", "reasoning", "called"),
    (
        ("just text ", "just text ", "", 0),
        ("<think>hm\n</think>\n\nyes", "yes", "hm", 0),
        (CALL, "", "", 1),
        (f"Let me see.\n{CALL}\n{CALL}", "Let me see.", "", 2),
        (f"<think>\nhm\n</think>\n\n{CALL}\n", "", "hm", 1),
        ("a <b> c <tool", "a <b> c <tool", "", 0),
        ("<think>cut off", "", "cut off", 0),
        ("<tool_call>nothing</tool_call> else", "<tool_call>nothing</tool_call> else", "", 0),
        ("<tool_call>nothing", "<tool_call>nothing", "", 0),
    ),
)
def test_an_answer_is_taken_apart_however_it_comes(
    text: str, shown: str, reasoning: str, called: int
) -> None:
    """In one piece and character by character: text, reasoning and calls are the same."""
    for pieces in ((text,), tuple(text)):
        whole = joined(read(BOTH, *pieces))
        assert (whole.text, whole.reasoning) == (shown, reasoning)
        assert calls(whole) == [("add", ARGUMENTS)] * called


@given(
    st.lists(
        st.sampled_from(("<think>", "</think>", CALL, "<tool", " ", "\n", "x", "<")), max_size=9
    )
)
def test_how_the_text_is_cut_changes_nothing(parts: list[str]) -> None:
    """Sections depend on the text alone, not on its tokens."""
    text = "".join(parts)
    whole, pieces = joined(read(BOTH, text)), joined(read(BOTH, *text))
    assert (whole.text, whole.reasoning) == (pieces.text, pieces.reasoning)
    assert calls(whole) == calls(pieces)


def test_arguments_are_told_as_they_come() -> None:
    """A call's name comes before its arguments are complete."""
    first, second, *_ = read(BOTH, '<tool_call>{"name": "f", "arguments": {"x"', ": 1", "}}")
    (begun,) = first.tool_calls
    assert (begun.index, begun.name, begun.arguments) == (0, "f", '{"x"')
    assert second.tool_calls == (ToolCallDelta(0, None, None, ": 1"),)


def test_ids_are_never_repeated() -> None:
    ids = {delta.id for delta in joined(read(BOTH, CALL * 50)).tool_calls}
    assert len(ids) == 50


def test_what_the_prompt_opened_is_reasoning() -> None:
    """A template may have written the start tag."""
    whole = joined(read(Tags(THINK, is_thinking=True), "hm</think>", "\n\nyes"))
    assert (whole.reasoning, whole.text) == ("hm", "yes")


def test_one_call_ends_an_answer_that_may_have_but_one() -> None:
    reader = SectionReader(Tags(None, JSON_CALLS, takes_one_call=True))
    section = reader.push(CALL + CALL)
    assert (len(calls(section)), reader.is_over) == (1, True)
    assert reader.finish() == Section()


@pytest.mark.parametrize(
    "body",
    (
        '{"arguments": {"x": 1}, "name": "f"}',
        '{"name": "f", "arguments": "{\\"x\\": 1}"}',
        '{"name": "f", "parameters": {"x": 1}}',
        '[{"name": "f", "arguments": {"x": 1}}]',
    ),
)
def test_calls_in_other_shapes_are_calls(body: str) -> None:
    """Models vary: another order, JSON in a string, a list."""
    whole = joined(read(BOTH, f"<tool_call>{body}</tool_call>"))
    ((name, arguments),) = calls(whole)
    assert (name, json.loads(arguments)) == ("f", {"x": 1})


def test_a_model_with_its_own_format_has_its_own_parser() -> None:
    """Its calls are told when they are complete, at the latest at the end of the answer."""

    def parse(body: str, tools: object) -> object:
        return [{"name": word, "arguments": {}} for word in body.split()]

    own = CallFormat("[CALLS]", "", parse, is_json=False)
    sections = read(Tags(None, own), "Well. [CALLS]one ", "two")
    assert [calls(each) for each in sections] == [[], [], [("one", "{}"), ("two", "{}")]]
    assert joined(sections).text == "Well."
