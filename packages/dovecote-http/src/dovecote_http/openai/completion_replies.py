"""Response bodies of text completions: the JSON that OpenAI's clients parse.

Does not know HTTP or the engine's thread.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Struct, UnsetType

from dovecote_http.answers.replies import FinishWord, UsageBody, token_text, usage_body
from dovecote_http.answers.sse import COMMENT, DONE, data_frame, failure_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.request import Started, TokenLogprobs, Usage
    from dovecote_http.answers.replies import Answer, Choice, Piece
    from dovecote_http.errors import ApiError

__all__ = ["TextReplies"]


class TextLogprobs(Struct, frozen=True):
    """Log probabilities as lists of equal length. `text_offset` counts characters."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Struct, frozen=True):
    """One choice, or a piece of one."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: FinishWord | None


class TextCompletion(Struct, frozen=True):
    """An answer in one piece, or an event of a stream: they have one shape."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageBody | UnsetType = UNSET


class _Offsets:
    """Where in its choice's text each token begins, though tokens may be parts of characters."""

    def __init__(self, start: int) -> None:
        self._position = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, content: bytes) -> int:
        """Where the next token begins; `content` is what it stands for."""
        begins = self._position
        self._position += len(self._decoder.decode(content))
        return begins


class TextReplies:
    """The bodies of a text completion. `prefixes`: what each choice's text begins with.
    `tells_usage`: as for `ChatReplies`.
    """

    def __init__(self, answer: Answer, prefixes: Sequence[str], *, tells_usage: bool) -> None:
        self._answer = answer
        self._tells_usage = tells_usage
        self._offsets = [_Offsets(len(prefix)) for prefix in prefixes]

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """As `Replies.whole`."""
        told = [
            TextChoice(choice.text, index, self._logprobs(index, choice.logprobs), choice.reason)
            for index, choice in enumerate(choices)
        ]
        return self._completion(told, usage_body(usage))

    def opening(self, index: int, started: Started) -> bytes:  # noqa: ARG002 - as `Replies`
        """A text has no role to tell."""
        return b""

    def piece(self, index: int, piece: Piece) -> bytes:
        """As `Replies.piece`. A raw completion has neither reasoning nor calls."""
        choice = TextChoice(piece.text, index, self._logprobs(index, piece.logprobs), None)
        return data_frame(self._completion([choice], UNSET))

    def finish(self, index: int, reason: FinishWord, stop: str | None) -> bytes:  # noqa: ARG002
        """As `Replies.finish`."""
        return data_frame(self._completion([TextChoice("", index, None, reason)], UNSET))

    def ending(self, usage: Usage) -> bytes:
        """As `ChatReplies.ending`."""
        counts = data_frame(self._completion([], usage_body(usage))) if self._tells_usage else b""
        return counts + DONE

    def sign_of_life(self) -> bytes:
        """As `ChatReplies.sign_of_life`."""
        return COMMENT

    def failure(self, error: ApiError) -> bytes:
        """As `Replies.failure`."""
        return failure_frame(error)

    def _logprobs(
        self, index: int, logprobs: Sequence[TokenLogprobs] | None
    ) -> TextLogprobs | None:
        if logprobs is None:
            return None
        offsets = self._offsets[index]
        return TextLogprobs(
            tokens=[token_text(each.chosen) for each in logprobs],
            token_logprobs=[each.chosen.logprob for each in logprobs],
            # The sampled token is told even where it is not among the likeliest.
            top_logprobs=[
                {token_text(token): token.logprob for token in (each.chosen, *each.top)}
                for each in logprobs
            ],
            text_offset=[offsets.take(each.chosen.content) for each in logprobs],
        )

    def _completion(self, choices: list[TextChoice], usage: UsageBody | UnsetType) -> bytes:
        answer = self._answer
        return msgspec.json.encode(
            TextCompletion(
                answer.id, "text_completion", answer.created, answer.model, choices, usage
            )
        )
