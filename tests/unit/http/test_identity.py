"""Identity: who the agent of a request is."""

from __future__ import annotations

import pytest

from dovecote_http.bodies import ChatBody, Message
from dovecote_http.errors import ApiError
from dovecote_http.identity import find_agent

HEADERS = {"X-Agent-ID": "h1", "X-Session-Id": "h2", "x-session-affinity": "h3"}
FIELDS = {"session_id": "b1", "prompt_cache_key": "b2", "user": "b3"}


def body(**fields: str) -> ChatBody:
    return ChatBody(messages=[Message("user", "Hi")], **fields)  # type: ignore[arg-type]


def test_sources_have_a_fixed_order() -> None:
    """The more a source names an agent, the earlier it is asked."""
    headers, fields, found = dict(HEADERS), dict(FIELDS), []
    for source in (
        "X-Agent-ID",
        "session_id",
        "X-Session-Id",
        "x-session-affinity",
        "prompt_cache_key",
        "user",
    ):
        found.append(find_agent(headers, body(**fields)))
        headers.pop(source, None)
        fields.pop(source, None)
    assert found == ["h1", "b1", "h2", "h3", "b2", "b3"]
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
