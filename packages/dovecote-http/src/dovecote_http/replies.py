"""Response bodies of chat completions: the JSON that OpenAI's clients parse.

Does not know HTTP or the engine's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dovecote_engine.request import RankedToken, TokenLogprobs, Usage

__all__ = ["Answer", "ChatReplies", "Choice", "Replies", "token_text", "usage_body"]

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


class RankedTokenBody(Struct, frozen=True):
    """A token that might have been, with its bytes: it may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobsBody(Struct, frozen=True):
    """A token of the answer and the likeliest ones in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[RankedTokenBody]


class LogprobsBody(Struct, frozen=True):
    """The log probabilities of a piece of the answer."""

    content: list[TokenLogprobsBody]
    refusal: None = None


class AnswerChoice(Struct, frozen=True):
    """One choice."""

    index: int
    message: AnswerMessage
    logprobs: LogprobsBody | None
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
    """A piece of one choice."""

    index: int
    delta: Delta
    logprobs: LogprobsBody | None
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


def logprobs_body(logprobs: Iterable[TokenLogprobs]) -> LogprobsBody:
    """Log probabilities in OpenAI's words."""
    return LogprobsBody([_token_logprobs(each) for each in logprobs])


def token_text(token: RankedToken) -> str:
    """The token as text; bytes that are no characters of their own as U+FFFD."""
    return token.content.decode(errors="replace")


def _token_logprobs(each: TokenLogprobs) -> TokenLogprobsBody:
    top = [
        RankedTokenBody(token_text(token), token.logprob, list(token.content)) for token in each.top
    ]
    chosen = each.chosen
    return TokenLogprobsBody(token_text(chosen), chosen.logprob, list(chosen.content), top)


class Answer(Struct, frozen=True):
    """What all the bodies of one completion have in common."""

    id: str
    created: int
    model: str


@dataclass(slots=True)
class Choice:
    """One choice, as far as it has come. `logprobs` None: they were not asked for."""

    text: str = ""
    logprobs: list[TokenLogprobs] | None = None
    reason: FinishWord = "stop"


class Replies(Protocol):
    """The JSON of one answer, whole or in the chunks of a stream. `index` is the choice's."""

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """An answer in one piece."""

    def opening(self, index: int) -> bytes | None:
        """The first chunk of a choice, if it has one before its text."""

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprobs] | None) -> bytes:
        """A piece of a choice; `logprobs` None if they were not asked for."""

    def finish(self, index: int, reason: FinishWord) -> bytes:
        """The last chunk of a choice."""

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices, for those who asked for it: others trip over it."""


class ChatReplies:
    """The bodies of a chat completion."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """As `Replies.whole`."""
        answer = self._answer
        bodies = tuple(
            AnswerChoice(
                index,
                AnswerMessage("assistant", choice.text),
                None if choice.logprobs is None else logprobs_body(choice.logprobs),
                choice.reason,
            )
            for index, choice in enumerate(choices)
        )
        return msgspec.json.encode(
            Completion(
                answer.id,
                "chat.completion",
                answer.created,
                answer.model,
                bodies,
                usage_body(usage),
            )
        )

    def opening(self, index: int) -> bytes:
        """The chunk that tells the role."""
        return self._choice(index, Delta(role="assistant", content=""))

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprobs] | None) -> bytes:
        """As `Replies.piece`."""
        told = None if logprobs is None else logprobs_body(logprobs)
        return self._choice(index, Delta(content=text), told)

    def finish(self, index: int, reason: FinishWord) -> bytes:
        """As `Replies.finish`."""
        return self._choice(index, Delta(), reason=reason)

    def usage(self, usage: Usage) -> bytes:
        """As `Replies.usage`."""
        return self._chunk((), usage_body(usage))

    def _choice(
        self,
        index: int,
        delta: Delta,
        logprobs: LogprobsBody | None = None,
        reason: FinishWord | None = None,
    ) -> bytes:
        return self._chunk((ChunkChoice(index, delta, logprobs, reason),), UNSET)

    def _chunk(self, choices: tuple[ChunkChoice, ...], usage: UsageBody | UnsetType) -> bytes:
        answer = self._answer
        return msgspec.json.encode(
            Chunk(answer.id, "chat.completion.chunk", answer.created, answer.model, choices, usage)
        )
