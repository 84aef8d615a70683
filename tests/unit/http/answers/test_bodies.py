"""Bodies: what is read, what is refused by name, what is ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dovecote_http.answers.bodies import ChatBody, decode_chat, template_messages
from dovecote_http.errors import ApiError

MESSAGES = [{"role": "user", "content": "Hi"}]


def decode(**fields: object) -> ChatBody:
    return decode_chat(json.dumps({"messages": MESSAGES, **fields}).encode())


def refusal(raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        template_messages(decode_chat(raw))
    assert caught.value.status == 400
    assert caught.value.body.type == "invalid_request_error"
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param"),
    (
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [*MESSAGES, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        (
            {"messages": [{"role": "assistant", "function_call": {"arguments": "{}"}}]},
            "messages[0].function_call.name",
        ),
        ({"model": 1}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"seed": "x"}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"session_id": 7}, "session_id"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"stop": ""}, "stop"),
        ({"stop": ["END", ""]}, "stop[1]"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": 5}, "stop"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
        ({"logit_bias": {"5": -100.5}}, "logit_bias[...]"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 11}, "repetition_penalty"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"tools": {}}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
    ),
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """A wrong type, a value out of range and an unsupported wish are 400s that name the field."""
    error = refusal(json.dumps({"messages": MESSAGES, **fields}).encode())
    assert error.body.param == param
    assert f"'{param}'" in error.body.message


@pytest.mark.parametrize(
    "fields",
    (
        {"n": 1},
        {"n": None},
        {"stop": None},
        {"stop": []},
        {"logprobs": False, "top_logprobs": 0},
        {"logit_bias": {}},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0},
        {"top_k": -1, "min_p": 0},
        {"tools": [], "tool_choice": "auto", "functions": None, "function_call": "none"},
        {"tools": None, "tool_choice": None},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"], "audio": None},
        {"stream_options": None},
        {"stream_options": {}},
        {"store": True, "metadata": {"a": 1}, "service_tier": "auto", "verbosity": "low"},
        {"parallel_tool_calls": True, "safety_identifier": "x", "prompt_cache_options": [1]},
        {"something": {"nobody": ["knows"]}},
    ),
)
def test_what_leaves_the_answer_as_it_is_passes(fields: dict[str, Any]) -> None:
    """Neutral values and unknown fields are accepted."""
    assert decode(**fields).token_limit is None


@pytest.mark.parametrize(
    ("raw", "told"),
    (
        (b"", "byte 0"),
        (b'{"messages": [', "byte 14"),
        (b'{"messages": oops}', "byte 13"),
        (b'{"messages": [{"role": "user"}]} tail', "byte 34"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "UTF-8"),
        (b'{"x": ' + b"[" * 100_000, "nested too deeply"),
    ),
)
def test_broken_json_is_told_with_its_place(raw: bytes, told: str) -> None:
    """What is not JSON is a 400 that says where it breaks."""
    assert told in refusal(raw).body.message


def test_a_body_that_is_no_object_is_refused() -> None:
    """A JSON list is not a body; no field is to blame."""
    assert refusal(b"[]").body.param is None


def test_missing_messages_are_named() -> None:
    """A body without messages is refused by that name."""
    assert refusal(b"{}").body.param == "messages"


def test_the_newer_token_limit_wins() -> None:
    """`max_completion_tokens` goes before `max_tokens`."""
    assert decode(max_tokens=9, max_completion_tokens=4).token_limit == 4
    assert decode(max_tokens=9).token_limit == 9


def test_content_becomes_one_string() -> None:
    """A string, null and text parts all reach the template as a string."""
    body = decode(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
            {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
        ]
    )
    assert template_messages(body) == [
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "ab"},
        {"role": "tool", "content": "4", "name": "add", "tool_call_id": "c1"},
    ]


BEGUN = {"role": "assistant", "content": "The"}
CONTINUES = {"add_generation_prompt": False, "continue_final_message": True}


@pytest.mark.parametrize(
    ("message", "fields", "param"),
    (
        (BEGUN, {"continue_final_message": True}, "continue_final_message"),
        (
            BEGUN,
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
        (BEGUN, {"add_generation_prompt": False}, "add_generation_prompt"),
        (BEGUN, {"continue_final_message": 1}, "continue_final_message"),
        (MESSAGES[0], CONTINUES, "messages"),
        ({**BEGUN, "content": ""}, CONTINUES, "messages"),
        ({**BEGUN, "content": None}, CONTINUES, "messages"),
        ({**BEGUN, "content": "The "}, CONTINUES, "messages"),
        ({**BEGUN, "content": "The\n"}, CONTINUES, "messages"),
        (
            {**BEGUN, "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
            CONTINUES,
            "messages",
        ),
        ({**BEGUN, "function_call": {"name": "f"}}, CONTINUES, "messages"),
    ),
)
def test_what_cannot_be_continued_is_refused(
    message: dict[str, object], fields: dict[str, object], param: str
) -> None:
    """Only an assistant's text, not ending with white space, and only if both fields say so."""
    body = {"messages": [*MESSAGES, message], **fields}
    assert refusal(json.dumps(body).encode()).body.param == param


@pytest.mark.parametrize("content", ("The", [{"type": "text", "text": "The"}]))
def test_the_last_message_may_be_the_answers_beginning(content: object) -> None:
    """Without the fields an assistant's last message is one like any other."""
    messages = [*MESSAGES, {**BEGUN, "content": content}]
    assert decode(messages=messages, **CONTINUES).begun == "The"
    assert decode(messages=messages).begun == ""
