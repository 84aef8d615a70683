"""What the engine needs of a loaded model, as protocols: any mlx-lm model and tokenizer fit.

Does not know files, formats or chat templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llguidance import LLTokenizer
    from mlx import nn

    from dovecote_cache import Geometry
    from dovecote_engine.text.markup import Markup
    from dovecote_engine.text.sampled_turns import SampledTurn
    from dovecote_engine.text.text_stream import TextStream


class PromptTokenizer(Protocol):
    """What makes prompts, and tells what tokens stand for. Any thread."""

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        salt: bytes = b"",
        *,
        continues: bool = False,
    ) -> tuple[int, ...]:
        """The token ids of a conversation under the model's chat template, and of the header of the
        answer to come; if it `continues`, the answer has begun with the last message instead.
        Turns remembered under `salt` stand there as they were sampled.
        """

    def encode(self, text: str) -> tuple[int, ...]:
        """The token ids of a raw prompt."""

    def encode_inner(self, text: str) -> tuple[int, ...]:
        """The token ids of a text that stands inside a prompt."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids without special ones."""

    def verbatim(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ones included."""

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, by itself; the name of one that stands for no text."""


class Tokenizer(PromptTokenizer, Protocol):
    """Text to token ids and back, and how answers are read. Any thread."""

    @property
    def token_characters(self) -> int:
        """No token stands for more characters of a text; 0 if that is not known."""

    def text_stream(
        self, shown_ids: frozenset[int] = frozenset(), lead: Sequence[int] = ()
    ) -> TextStream:
        """A fresh incremental detokenizer. Special tokens have no text but for `shown_ids`; what
        comes is a text of its own, or goes on where the tokens `lead` end.
        """

    @property
    def markup(self) -> Markup:
        """How reasoning and tool calls are marked."""

    def grammar_tokenizer(self) -> LLTokenizer | None:
        """The vocabulary for grammars; None if it cannot be had. Takes time."""

    def remember(self, turn: SampledTurn, salt: bytes) -> None:
        """Keeps an answer's tokens for `render`, should it come back."""


class Loaded(Protocol):
    """A model in memory, evaluated."""

    @property
    def model(self) -> nn.Module:
        """Callable as mlx-lm's models are: (tokens [R, T], cache) to logits [R, T, V]."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""

    @property
    def id(self) -> str:
        """The name that clients call it by."""

    @property
    def context_tokens(self) -> int:
        """The longest sequence it takes, prompt and answer."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""

    @property
    def geometry(self) -> Geometry:
        """The shape of its K and V; of nothing, if it is uncached."""

    @property
    def is_recurrent(self) -> bool:
        """Whether some layers keep a recurrent state, of which `geometry` does not tell."""

    @property
    def uncached(self) -> str:
        """Why the pool cannot keep what it computes; empty if it can."""

    @property
    def created(self) -> int:
        """When its weights were made, in unix seconds."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What callers may know of the model.

    `created` is in unix seconds. `uncached`: why every prompt is computed anew; empty if it is not.
    """

    id: str
    created: int
    context_tokens: int
    tokenizer: Tokenizer
    uncached: str = ""
