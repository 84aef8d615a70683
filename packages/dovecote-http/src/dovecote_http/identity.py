"""Who the agent of a request is. Identity decides retention and listing, never what is cached.

| order | source                               | names              |
|-------|--------------------------------------|--------------------|
| 1     | header X-Agent-ID                    | the agent          |
| 2     | body `session_id`                    | a session          |
| 3     | header X-Session-Id                  | a session          |
| 4     | header x-session-affinity            | a session          |
| 5     | body `prompt_cache_key`              | a family of prompts |
| 6     | body `user`                          | a user             |

Does not know the agents' book.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dovecote_http.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dovecote_engine.request import Priority
    from dovecote_http.bodies import GenerationBody

_LONGEST_NAME = 256
"""Characters. Clients' session ids have at most 128; a name is a row in a book, not a document."""


def find_priority(headers: Mapping[str, str], body: GenerationBody) -> Priority:
    """Header `X-Dovecote-Priority`, else body `priority`, else interactive.

    A number in the body is another server's idea of priority, and ignored as unknown fields are.
    Raises: ApiError (400) for any other word.
    """
    named = (
        ("X-Dovecote-Priority", headers.get("X-Dovecote-Priority")),
        ("priority", body.priority),
    )
    for source, word in named:
        if word == "background":
            return "background"
        if word == "interactive":
            return "interactive"
        if isinstance(word, str):
            raise invalid(f"'{source}' must be interactive or background.", source)
    return "interactive"


def find_agent(headers: Mapping[str, str], body: GenerationBody) -> str | None:
    """The agent's name, or None. Raises: ApiError (400) that names the source of a bad name."""
    named = (
        ("X-Agent-ID", headers.get("X-Agent-ID")),
        ("session_id", body.session_id),
        ("X-Session-Id", headers.get("X-Session-Id")),
        ("x-session-affinity", headers.get("x-session-affinity")),
        ("prompt_cache_key", body.prompt_cache_key),
        ("user", body.user),
    )
    for source, name in named:
        if name is not None:
            return _checked(name, source)
    return None


def _checked(name: str, source: str) -> str:
    if 1 <= len(name) <= _LONGEST_NAME and name.isprintable():
        return name
    raise invalid(f"'{source}' must be 1 to {_LONGEST_NAME} printable characters.", source)
