"""Response bodies of chat completions: the JSON that OpenAI's clients parse.

Does not know HTTP or the engine's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

if TYPE_CHECKING:
    from dovecote_engine.request import Usage

__all__ = ["Answer", "ChunkWriter", "usage_body"]

FinishWord = Literal["stop", "length"]


class PromptDetails(Struct, frozen=True):
    """`cached_tokens` of the prompt came from the pool."""

    cached_tokens: int


class CompletionDetails(Struct, frozen=True):
    """No served model reasons apart from its answer yet."""

    reasoning_tokens: int = 0


class UsageBody(Struct, frozen=True):
    """Token counts. `prompt_tokens` includes the cached ones."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class AnswerMessage(Struct, frozen=True):
    """The whole answer."""

    role: str
    content: str
    refusal: None = None


class AnswerChoice(Struct, frozen=True):
    """The one choice."""

    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: FinishWord


class Completion(Struct, frozen=True):
    """An answer in one piece."""

    id: str
    object: str
    created: int
    model: str
    choices: tuple[AnswerChoice, ...]
    usage: UsageBody


class Delta(Struct, frozen=True):
    """What a chunk adds."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    """The one choice, in a chunk."""

    index: int
    delta: Delta
    logprobs: None
    finish_reason: FinishWord | None


class Chunk(Struct, frozen=True):
    """One event of a stream."""

    id: str
    object: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: UsageBody | UnsetType = UNSET


def usage_body(usage: Usage) -> UsageBody:
    """Token counts in OpenAI's words."""
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptDetails(usage.cached_tokens),
        completion_tokens_details=CompletionDetails(),
    )


class Answer(Struct, frozen=True):
    """What all the bodies of one completion have in common."""

    id: str
    created: int
    model: str

    def whole(self, text: str, reason: FinishWord, usage: Usage) -> bytes:
        """The JSON of an answer in one piece."""
        choice = AnswerChoice(0, AnswerMessage("assistant", text), None, reason)
        completion = Completion(
            self.id, "chat.completion", self.created, self.model, (choice,), usage_body(usage)
        )
        return msgspec.json.encode(completion)


class ChunkWriter:
    """The JSON of the chunks of one streamed answer, in the order they are sent."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def role(self) -> bytes:
        """The first chunk."""
        return self._choice(Delta(role="assistant", content=""), None)

    def text(self, text: str) -> bytes:
        """A piece of the answer."""
        return self._choice(Delta(content=text), None)

    def finish(self, reason: FinishWord) -> bytes:
        """The last chunk with a choice."""
        return self._choice(Delta(), reason)

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices, for those who asked for it: others trip over it."""
        return self._chunk((), usage_body(usage))

    def _choice(self, delta: Delta, reason: FinishWord | None) -> bytes:
        return self._chunk((ChunkChoice(0, delta, None, reason),), UNSET)

    def _chunk(self, choices: tuple[ChunkChoice, ...], usage: UsageBody | UnsetType) -> bytes:
        answer = self._answer
        return msgspec.json.encode(
            Chunk(answer.id, "chat.completion.chunk", answer.created, answer.model, choices, usage)
        )
