"""One agent's conversation with a server, through the real `openai` client."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import openai

MODEL = "SmolLM2-135M-Instruct"
BLOCK_TOKENS = 32


def client_of(url: str) -> openai.OpenAI:
    """A client that never retries: what a test sees is the server's first answer."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)


@dataclass(frozen=True)
class Answer:
    """What one turn gave."""

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def block_tokens(self) -> int:
        """Tokens in whole blocks of what went through the model: all but the last one sampled."""
        return (self.prompt_tokens + self.completion_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS


@dataclass
class Conversation:
    """The messages so far, as a client keeps them. `agent` None sends no identity.

    `wishes` are further fields of every request.
    """

    url: str
    agent: str | None = None
    system: str = ""
    max_tokens: int = 24
    messages: list[dict[str, str]] = field(default_factory=list)
    model: str = MODEL
    wishes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.system and not self.messages:
            self.messages.append({"role": "system", "content": self.system})

    def ask(self, text: str) -> Answer:
        """Ask at temperature 0, without streaming, and remember the answer."""
        self.messages.append({"role": "user", "content": text})
        with self._client() as client:
            completion = client.chat.completions.create(**self._arguments())
        choice = completion.choices[0]
        self.messages.append({"role": "assistant", "content": choice.message.content})
        return _answer(choice.message.content, choice.finish_reason, completion.usage)

    def ask_streaming(self, text: str) -> Answer:
        """As `ask`, streamed."""
        self.messages.append({"role": "user", "content": text})
        options = {"stream": True, "stream_options": {"include_usage": True}}
        pieces, reason, usage = [], None, None
        with self._client() as client:
            create: Any = client.chat.completions.create
            for chunk in create(**self._arguments(), **options):
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    pieces.append(choice.delta.content or "")
                    reason = choice.finish_reason or reason
        self.messages.append({"role": "assistant", "content": "".join(pieces)})
        return _answer("".join(pieces), reason, usage)

    def moved_to(self, url: str) -> Conversation:
        """The same conversation, to be continued at another address."""
        return replace(self, url=url, messages=list(self.messages))

    def _client(self) -> openai.OpenAI:
        return client_of(self.url)

    def _arguments(self) -> dict[str, Any]:
        headers = {"X-Agent-ID": self.agent} if self.agent else {}
        return {
            "model": self.model,
            "messages": self.messages,
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "extra_headers": headers,
            **self.wishes,
        }


def _answer(text: str, reason: str | None, usage: Any) -> Answer:
    assert reason is not None
    return Answer(
        text,
        reason,
        usage.prompt_tokens,
        usage.prompt_tokens_details.cached_tokens,
        usage.completion_tokens,
    )
