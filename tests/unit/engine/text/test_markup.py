from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mlx_lm.tool_parsers import json_tools, qwen3_coder

from dovecote_engine.text.markup import PLAIN, markup_of


def wrapper(**known: object) -> Any:
    """As much of mlx-lm's wrapper as tells of markup."""
    return SimpleNamespace(**{"has_thinking": False, "has_tool_calling": False, **known})


def calling(parser: Any) -> dict[str, object]:
    return {
        "has_tool_calling": True,
        "tool_call_start": "<tool_call>",
        "tool_call_end": "</tool_call>",
        "tool_call_start_tokens": (7,),
        "tool_call_end_tokens": (8,),
        "tool_parser": parser.parse_tool_call,
    }


def test_a_model_without_tags_has_plain_answers() -> None:
    assert markup_of(wrapper(), ()) == PLAIN


def test_special_tokens_of_tags_are_shown() -> None:
    """Others are not: they are part of no tag."""
    thinking = {
        "has_thinking": True,
        "think_start": "<think>",
        "think_end": "</think>",
        "think_start_tokens": (5,),
        "think_end_tokens": (6,),
    }
    markup = markup_of(wrapper(**thinking, **calling(json_tools)), {1, 6, 7})
    assert markup.shown_ids == {6, 7}
    assert markup.think is not None
    assert markup.think.end_ids == (6,)


@pytest.mark.parametrize(("parser", "is_json"), ((json_tools, True), (qwen3_coder, False)))
def test_json_calls_are_known_as_such(parser: Any, is_json: bool) -> None:
    """Their arguments can be told as they come; others wait for their parser."""
    calls = markup_of(wrapper(**calling(parser)), ()).calls
    assert calls is not None
    assert calls.is_json is is_json
    text = '{"name": "f", "arguments": {}}' if is_json else "<function=f>\n</function>"
    assert calls.parse(text, ()) == {"name": "f", "arguments": {}}
