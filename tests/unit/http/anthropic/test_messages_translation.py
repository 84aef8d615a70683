"""What of a message's body becomes which part of a chat."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from dovecote_http.anthropic.body import decode_message
from dovecote_http.anthropic.translation import as_chat
from dovecote_http.errors import ApiError

if TYPE_CHECKING:
    from dovecote_http.answers.bodies import ChatBody

HI = {"role": "user", "content": "Hi"}


def chat(**fields: object) -> ChatBody:
    """The chat of a message; `messages` and `max_tokens` may be left out."""
    return as_chat(
        decode_message(json.dumps({"max_tokens": 9, "messages": [HI], **fields}).encode())
    )


def turns(body: ChatBody) -> list[dict[str, Any]]:
    """The messages without what is null in them."""
    plain = [msgspec.to_builtins(message) for message in body.messages]
    return [{name: value for name, value in turn.items() if value is not None} for turn in plain]


def text(value: str, **more: object) -> dict[str, object]:
    return {"type": "text", "text": value, **more}


BILLING = "x-anthropic-billing-header: cc_version=2.1.84.c8e; cc_entrypoint=cli; cch=4f3a1;"


@pytest.mark.parametrize(
    ("system", "shown"),
    (
        (None, None),
        ("", None),
        ("Be brief.", "Be brief."),
        ([text("One.", cache_control={"type": "ephemeral"}), text("Two.")], "One.\n\nTwo."),
        ([text(BILLING), text("Be brief.")], "Be brief."),
        ([text(f"{BILLING}\nBe brief.")], "Be brief."),
        (f"{BILLING}\n\nBe brief.", "Be brief."),
        ([text(BILLING)], None),
        ([text("One."), text(BILLING)], f"One.\n\n{BILLING}"),
    ),
)
def test_the_system_prompt_comes_first_without_the_billing_line(
    system: object, shown: str | None
) -> None:
    """The line that changes with each request goes; what only looks like it further on stays."""
    expected = [] if shown is None else [{"role": "system", "content": shown}]
    assert turns(chat(system=system)) == [*expected, HI]


def test_two_requests_that_differ_in_billing_alone_have_one_prompt() -> None:
    """So the second finds the first one's blocks."""
    other = BILLING.replace("4f3a1", "99999").replace("c8e", "76b")
    blocks = [[text(line), text("You are Claude Code.")] for line in (BILLING, other)]
    assert turns(chat(system=blocks[0])) == turns(chat(system=blocks[1]))


def test_texts_of_a_message_are_joined() -> None:
    content = [text("One."), text("Two.")]
    assert turns(chat(messages=[{"role": "user", "content": content}])) == [
        {"role": "user", "content": "One.\n\nTwo."}
    ]


@pytest.mark.parametrize(
    ("user_id", "field", "name"),
    (
        ("mallory", "user", "mallory"),
        ('{"device_id":"d","account_uuid":"","session_id":"s-1"}', "session_id", "s-1"),
        ("user_0ab_account__session_f1e2-3", "session_id", "f1e2-3"),
        ('{"device_id":"d"}', "user", '{"device_id":"d"}'),
    ),
)
def test_the_user_id_may_hold_a_session(user_id: str, field: str, name: str) -> None:
    """Claude Code's two forms of it are sessions; anything else is a user."""
    body = chat(metadata={"user_id": user_id})
    assert getattr(body, field) == name


def test_a_session_of_the_body_goes_before_the_user_id() -> None:
    body = chat(session_id="mine", metadata={"user_id": "mallory"})
    assert (body.session_id, body.user) == ("mine", None)


@pytest.mark.parametrize("content", ("The", [text("T"), text("he")]))
def test_an_answer_that_has_begun_is_continued(content: object) -> None:
    """The assistant's last message is not closed."""
    body = chat(messages=[HI, {"role": "assistant", "content": content}])
    assert turns(body) == [HI, {"role": "assistant", "content": "The"}]
    assert (body.add_generation_prompt, body.begun) == (False, "The")


@pytest.mark.parametrize("content", ("", []))
def test_an_empty_beginning_is_none(content: object) -> None:
    """These clients may send it, and mean an ordinary answer."""
    body = chat(messages=[HI, {"role": "assistant", "content": content}])
    assert (turns(body), body.begun) == ([HI], "")


@pytest.mark.parametrize(
    ("fields", "named"),
    (
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"),
        ({"messages": [HI, {"role": "assistant", "content": "The "}]}, "trailing whitespace"),
        (
            {
                "messages": [
                    HI,
                    {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm"}]},
                ]
            },
            "empty",
        ),
        (
            {
                "messages": [
                    HI,
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}],
                    },
                ]
            },
            "without calls",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
    ),
)
def test_what_cannot_be_met_is_refused_by_name(fields: dict[str, object], named: str) -> None:
    """Nothing that would change the answer is left out in silence."""
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    assert named in str(caught.value)
