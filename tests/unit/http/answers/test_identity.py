"""Identity: who the agent of a request is."""

from __future__ import annotations

import pytest

from dovecote_http.answers.bodies import ChatBody, Message
from dovecote_http.answers.identity import find_agent
from dovecote_http.errors import ApiError

CLIENT_HEADERS = (
    "X-Session-Id",
    "x-session-affinity",
    "thread-id",
    "thread_id",
    "session-id",
    "session_id",
    "X-Claude-Code-Session-Id",
    "x-opencode-session",
    "X-OpenWebUI-Chat-Id",
    "x-grok-conv-id",
)
HEADERS = {name: f"of {name}" for name in ("X-Agent-ID", *CLIENT_HEADERS)}
FIELDS = {"session_id": "b1", "prompt_cache_key": "b2", "user": "b3", "safety_identifier": "b4"}


def body(**fields: str) -> ChatBody:
    return ChatBody(messages=[Message("user", "Hi")], **fields)  # type: ignore[arg-type]


def test_sources_have_a_fixed_order() -> None:
    """The more a source names an agent, the earlier it is asked."""
    headers, fields = dict(HEADERS), dict(FIELDS)
    order = [
        (headers, "X-Agent-ID"),
        (fields, "session_id"),
        *((headers, name) for name in CLIENT_HEADERS),
        (fields, "prompt_cache_key"),
        (fields, "user"),
        (fields, "safety_identifier"),
    ]
    for named, source in order:
        assert find_agent(headers, body(**fields)) == named.pop(source)
    assert find_agent(headers, body(**fields)) is None


@pytest.mark.parametrize("name", ("", "a\nb", "\x00", "x" * 257, "\udce9", "\u2028"))
@pytest.mark.parametrize("source", (*HEADERS, *FIELDS))
def test_a_bad_name_is_refused_with_its_source(name: str, source: str) -> None:
    """Empty, long and unprintable names are a 400 that says where the name came from."""
    headers = {source: name} if source in HEADERS else {}
    fields = {source: name} if source in FIELDS else {}
    with pytest.raises(ApiError) as caught:
        find_agent(headers, body(**fields))
    assert (caught.value.status, caught.value.body.param) == (400, source)


@pytest.mark.parametrize("name", ("a", "x" * 256, "../etc", "Zoë 7", "鳩"))
def test_any_printable_name_passes(name: str) -> None:
    """Names are data, never paths, so their letters are free."""
    assert find_agent({"X-Agent-ID": name}, body()) == name
