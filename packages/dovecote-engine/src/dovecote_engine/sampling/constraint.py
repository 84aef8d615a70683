"""Holds a row's tokens to a grammar, by masks over the vocabulary that llguidance computes.

    compile (a worker thread, at admission) --begin, once a row--> RowConstraint (engine thread)

Reasoning is free: where a model thinks between tags, the grammar counts from the end tag on. The
row's first token may open the reasoning, unless the prompt has done so already.

    first --any other token--> bound        first --a start tag's first token--> thinking
    thinking --the last token of an end tag--> bound

Grammars are hostile input. llguidance bounds what it spends on one, in counts (`LIMITS`), and
`schema_bounds.py` what those do not reach: of 40 schemas made to be slow, none took more than 0.7 s
to compile, in a worker thread, or 35 ms for a token's mask. 128 strict tools take 0.5 s, an
ordinary schema milliseconds, an ordinary mask 0.07 ms. Beyond a bound the request is refused, or
its row fails alone. Does not know requests, schemas or the batch.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLParserLimits

from dovecote_engine.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from llguidance import LLTokenizer

__all__ = ["Constraint", "GrammarCompiler", "NoTokenFits", "RowConstraint", "Thinking"]

_MOST_BYTES = 512 << 10
"""Of a grammar's text: 300 enumerations of 50 words are 170 kB, and take 34 ms to compile."""

LIMITS = LLParserLimits(
    initial_lexer_fuel=300_000,  # regular expressions: 1,000,000 took 2 s
    max_grammar_size=30_000,  # 128 strict tools with six parameters each have half of it
    verbose_errors=False,
)
"""What a grammar may cost: for masks llguidance's defaults, for compiling a fraction of them."""

_QUIET = 0


class NoTokenFits(Exception):
    """The grammar cannot go on: it is too complex, or a token was sampled against it."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """The tags around reasoning, as token ids. `is_open`: the prompt ends with the start tag."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    is_open: bool


class GrammarCompiler:
    """Compiles grammars for one tokenizer, whose trie `make` builds at the first use: that takes
    0.4 s for 49,152 tokens. Any thread.
    """

    def __init__(self, make: Callable[[], LLTokenizer | None]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def compile(self, grammar: str, field: str, thinking: Thinking | None = None) -> Constraint:
        """The grammar (llguidance's Lark) as a constraint.

        Raises: BadRequest(field) if it is too large, unsatisfiable or not understood.
        """
        if len(grammar) > _MOST_BYTES:
            raise BadRequest(f"{field} is too large", field)
        text = LLMatcher.grammar_from_lark(grammar)
        tokenizer = self._built(field)
        matcher = LLMatcher(tokenizer, text, log_level=_QUIET, limits=LIMITS)
        # Some grammars are found to be too complex only where an object begins.
        probe = matcher.deep_copy()
        probe.try_consume_tokens(tokenizer.tokenize_str("{"))
        if not probe.is_error():
            probe.compute_bitmask()
        if probe.is_error():
            raise BadRequest(f"{field} cannot be held to: {_first_line(probe)}", field)
        return Constraint(matcher, thinking)

    def _built(self, field: str) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = self._make()
            if self._tokenizer is None:
                raise BadRequest("this model's tokenizer allows no constraints", field)
            return self._tokenizer


@dataclass(frozen=True, slots=True)
class Constraint:
    """A compiled grammar. Does not change: each row gets a state of its own."""

    matcher: LLMatcher
    thinking: Thinking | None

    def begin(self) -> RowConstraint:
        """The state of a row that has no token yet."""
        return RowConstraint(self.matcher.deep_copy(), self.thinking)


class RowConstraint:
    """What may come next in one row. Engine thread only."""

    def __init__(self, matcher: LLMatcher, thinking: Thinking | None) -> None:
        self._matcher = matcher
        self._thinking = thinking
        self._phase: Literal["first", "thinking", "bound"] = "first"
        if thinking is not None and thinking.is_open:
            self._phase = "thinking"
        self._tail: tuple[int, ...] = ()

    def apply(self, logits: mx.array) -> mx.array:
        """The logits [V] with -inf for what must not come next. Raises: NoTokenFits."""
        if self._phase == "thinking":
            return logits
        return mx.where(mx.array(self._allowed(logits.shape[-1])), logits, -mx.inf)

    def note(self, token: int) -> None:
        """Takes the sampled token in. Raises: NoTokenFits."""
        if self._phase == "thinking":
            self._think(token)
        elif self._phase == "first" and self._opens(token):
            self._phase = "thinking"
        else:
            self._phase = "bound"
            if not self._matcher.consume_token(token):
                raise NoTokenFits(self._matcher.stop_reason())

    def _allowed(self, vocabulary: int) -> npt.NDArray[np.bool_]:
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise NoTokenFits(self._matcher.stop_reason())
        allowed = np.zeros(vocabulary, np.bool_)
        known = min(vocabulary, packed.size * 8)
        allowed[:known] = np.unpackbits(packed, count=known, bitorder="little")
        if self._phase == "first" and self._thinking is not None:
            allowed[self._thinking.start[0]] = True
        if not allowed.any():
            raise NoTokenFits("no token of the vocabulary fits")
        return allowed

    def _opens(self, token: int) -> bool:
        return self._thinking is not None and token == self._thinking.start[0]

    def _think(self, token: int) -> None:
        assert self._thinking is not None  # noqa: S101 - the phase says so
        end: Sequence[int] = self._thinking.end
        self._tail = (*self._tail, token)[-len(end) :]
        if self._tail == end:
            self._phase = "bound"


def _first_line(matcher: LLMatcher) -> str:
    """Why the grammar was refused, without the grammar."""
    return matcher.get_error().split("\n", 1)[0][:200]
