"""Who the agent of a request is. Identity decides retention and listing, never what is cached.

| order | source                                     | names                         |
|-------|--------------------------------------------|-------------------------------|
| 1     | header X-Agent-ID                          | the agent                     |
| 2     | body `session_id`                          | a session                     |
| 3     | headers X-Session-Id, x-session-affinity   | a session                     |
| 4     | headers thread-id, thread_id               | a thread of Codex             |
| 5     | headers session-id, session_id             | a session of Codex            |
| 6     | header X-Claude-Code-Session-Id            | a session of Claude Code      |
| 7     | header x-opencode-session                  | a session of OpenCode         |
| 8     | header X-OpenWebUI-Chat-Id                 | a chat of Open WebUI          |
| 9     | header x-grok-conv-id                      | a conversation of xAI clients |
| 10    | body `prompt_cache_key`                    | a family of prompts           |
| 11    | body `user`, `safety_identifier`           | a user                        |

The finer comes first: the threads of one session of Codex are its subagents. Other clients'
subagents share their session's name, and so take turns.

Does not know the agents' book.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dovecote_http.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dovecote_engine.request import Priority
    from dovecote_http.answers.bodies import GenerationBody

_CLIENT_HEADERS = (
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
"""What clients call the conversation that a request belongs to."""

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
        *((name, headers.get(name)) for name in _CLIENT_HEADERS),
        ("prompt_cache_key", body.prompt_cache_key),
        ("user", body.user),
        ("safety_identifier", body.safety_identifier),
    )
    for source, name in named:
        if name is not None:
            return _checked(name, source)
    return None


def _checked(name: str, source: str) -> str:
    if 1 <= len(name) <= _LONGEST_NAME and name.isprintable():
        return name
    raise invalid(f"'{source}' must be 1 to {_LONGEST_NAME} printable characters.", source)
