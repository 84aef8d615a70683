"""Response bodies of chat completions: the JSON that OpenAI's clients parse.

`Replies` is what every protocol over the one engine writes its answers with: chat and text
completions, messages, responses.

Does not know HTTP or the engine's thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from dovecote_http.answers.sse import COMMENT, DONE, data_frame, failure_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dovecote_engine.request import RankedToken, Started, TokenLogprobs, ToolCallDelta, Usage
    from dovecote_http.errors import ApiError

__all__ = [
    "Answer",
    "ChatReplies",
    "Choice",
    "Piece",
    "Replies",
    "ToolCall",
    "token_text",
    "usage_body",
]

FinishWord = Literal["stop", "length", "tool_calls"]


class PromptDetails(Struct, frozen=True):
    """`cached_tokens` of the prompt came from the pool, `cache_write_tokens` were put there."""

    cached_tokens: int
    cache_write_tokens: int


class CompletionDetails(Struct, frozen=True):
    """`reasoning_tokens` of the completion came before the answer proper."""

    reasoning_tokens: int


class UsageBody(Struct, frozen=True):
    """Token counts. `prompt_tokens` includes the cached ones."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class FunctionBody(Struct, frozen=True):
    """A function's name, and its arguments as JSON text; in a stream, a piece of them."""

    arguments: str
    name: str | UnsetType = UNSET


class CallBody(Struct, frozen=True):
    """A tool call."""

    id: str
    function: FunctionBody
    type: str = "function"


class CallDelta(Struct, frozen=True):
    """A piece of a tool call: only its first one has id, type and name."""

    index: int
    function: FunctionBody
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class AnswerMessage(Struct, frozen=True):
    """The whole answer. Reasoning goes by both names that clients know."""

    role: str
    content: str | None
    refusal: None = None
    tool_calls: list[CallBody] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET


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
    tool_calls: list[CallDelta] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET


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
        prompt_tokens_details=PromptDetails(usage.cached_tokens, usage.kept_tokens),
        completion_tokens_details=CompletionDetails(usage.reasoning_tokens),
    )


def logprobs_body(logprobs: Iterable[TokenLogprobs]) -> LogprobsBody:
    """Log probabilities in OpenAI's words."""
    return LogprobsBody([_token_logprobs(each) for each in logprobs])


def token_text(token: RankedToken) -> str:
    """The token as text; bytes that are no characters of their own as U+FFFD."""
    return token.content.decode(errors="replace")


def _message(choice: Choice) -> AnswerMessage:
    """Content is null where there are calls alone: clients take "" for something that was said."""
    calls = [
        CallBody(each.id, FunctionBody(each.arguments, each.name)) for each in choice.tool_calls
    ]
    reasoning = choice.reasoning or UNSET
    return AnswerMessage(
        "assistant",
        choice.text if choice.text or not calls else None,
        tool_calls=calls or UNSET,
        reasoning_content=reasoning,
        reasoning=reasoning,
    )


def _delta(piece: Piece) -> Delta:
    reasoning = piece.reasoning or UNSET
    return Delta(
        content=piece.text or (UNSET if reasoning or piece.tool_calls else ""),
        tool_calls=[_call_delta(each) for each in piece.tool_calls] or UNSET,
        reasoning_content=reasoning,
        reasoning=reasoning,
    )


def _call_delta(delta: ToolCallDelta) -> CallDelta:
    if delta.id is None:
        return CallDelta(delta.index, FunctionBody(delta.arguments))
    function = FunctionBody(delta.arguments, delta.name or "")
    return CallDelta(delta.index, function, delta.id, "function")


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
class ToolCall:
    """One tool call, as far as it has come. `arguments` is JSON text."""

    id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a choice gains: any of these. `logprobs` None: they were not asked for."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.text or self.reasoning or self.tool_calls or self.logprobs)


@dataclass(slots=True)
class Choice:
    """One choice, as far as it has come. `logprobs` None: they were not asked for. `stop`: the stop
    string that ended it.
    """

    text: str = ""
    logprobs: list[TokenLogprobs] | None = None
    reason: FinishWord = "stop"
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    stop: str | None = None

    def add(self, piece: Piece) -> None:
        """Takes a piece in."""
        self.text += piece.text
        self.reasoning += piece.reasoning
        for delta in piece.tool_calls:
            if delta.id is not None:
                self.tool_calls.append(ToolCall(delta.id, delta.name or ""))
            self.tool_calls[delta.index].arguments += delta.arguments
        if self.logprobs is not None:
            self.logprobs += piece.logprobs or ()


class Replies(Protocol):
    """The bytes of one answer: a body, or the frames of a stream (`sse.py`), which may be none.

    `index` is the choice's. Frames are asked for in the order in which they are sent.
    """

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """The body of an answer in one piece."""

    def opening(self, index: int, started: Started) -> bytes:
        """What comes before the text of a choice."""

    def piece(self, index: int, piece: Piece) -> bytes:
        """A piece of a choice, not an empty one."""

    def finish(self, index: int, reason: FinishWord, stop: str | None) -> bytes:
        """What ends a choice; `stop` is the stop string that did, if one did."""

    def ending(self, usage: Usage) -> bytes:
        """What ends the stream."""

    def sign_of_life(self) -> bytes:
        """What is sent on a silent stream, perhaps before any opening."""

    def failure(self, error: ApiError) -> bytes:
        """What ends the stream in place of all that was to come."""


class ChatReplies:
    """The bodies of a chat completion. `tells_usage`: a stream ends with the chunk without choices
    that has the token counts, which is for those who asked for it: others trip over it.
    """

    def __init__(self, answer: Answer, *, tells_usage: bool) -> None:
        self._answer = answer
        self._tells_usage = tells_usage

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """As `Replies.whole`."""
        answer = self._answer
        bodies = tuple(
            AnswerChoice(
                index,
                _message(choice),
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

    def opening(self, index: int, started: Started) -> bytes:  # noqa: ARG002 - as `Replies`
        """The chunk that tells the role."""
        return self._choice(index, Delta(role="assistant", content=""))

    def piece(self, index: int, piece: Piece) -> bytes:
        """As `Replies.piece`."""
        told = None if piece.logprobs is None else logprobs_body(piece.logprobs)
        return self._choice(index, _delta(piece), told)

    def finish(self, index: int, reason: FinishWord, stop: str | None) -> bytes:  # noqa: ARG002
        """As `Replies.finish`."""
        return self._choice(index, Delta(), reason=reason)

    def ending(self, usage: Usage) -> bytes:
        """The token counts, if they were asked for, and the end."""
        return (self._chunk((), usage_body(usage)) if self._tells_usage else b"") + DONE

    def sign_of_life(self) -> bytes:
        """A comment: a chunk would count as an answer."""
        return COMMENT

    def failure(self, error: ApiError) -> bytes:
        """As `Replies.failure`."""
        return failure_frame(error)

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
        chunk = Chunk(
            answer.id, "chat.completion.chunk", answer.created, answer.model, choices, usage
        )
        return data_frame(msgspec.json.encode(chunk))
