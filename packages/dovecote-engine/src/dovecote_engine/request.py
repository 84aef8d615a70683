"""What a caller hands to the engine, and what comes back: plain values, no behaviour.

Does not know HTTP, MLX or the pool. These are the only engine names that `dovecote_http` needs
beside the `Engine` itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]

Priority = Literal["interactive", "background"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a row chooses its next token; `bounds.py` has the bounds of each field.

    A row's logits go through these, in this order, those at their defaults left out:

    1. `repetition_penalty`: the logit of every token of prompt and answer so far, the whole of
       both, is divided by it if positive and multiplied if not (arXiv:1909.05858, as transformers
       has it).
    2. `presence_penalty`, once for each token that the answer has, and `frequency_penalty`, as
       often as it has it, are subtracted.
    3. `logit_bias` is added: pairs of token id and bias.
    4. `temperature` divides; 0 takes the likeliest token here, and the rest is unused.
    5. `top_k` likeliest tokens are kept (0: all),
    6. then those that reach `top_p` of what is left,
    7. then those at least `min_p` times as likely as the likeliest.
    8. One of them is drawn with the row's own random numbers, made from `seed`.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to compute.

    `prompt` holds token ids, at least one. `max_tokens` None means: up to the model's context.
    Requests of one agent run one at a time, in the order of their submission; those without an
    agent run as slots allow. A background request gets what interactive ones leave, and a small
    share in any case.

    What is cached under one `salt` is found under that salt alone: so tenants do not share.

    The text ends before the first of the `stop` strings. `choices` answers are computed from one
    prompt, in rows that start and are cancelled together. `top_logprobs` not None asks for each
    token's log probability and for that many of the likeliest beside it.
    """

    id: str
    prompt: tuple[int, ...]
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    agent: str | None = None
    stop: tuple[str, ...] = ()
    choices: int = 1
    top_logprobs: int | None = None
    priority: Priority = "interactive"
    salt: bytes = b""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request. `cached_tokens` of the `prompt_tokens` came from the pool.

    The prompt counts once, however many choices there are; their sampled tokens are summed.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time to the first token went, in seconds."""

    queue_s: float
    restore_s: float
    prefill_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt is in the row and the first token is about to follow: everything that a response
    header may say is known.
    """

    request_id: str
    cached_tokens: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class RankedToken:
    """A token, its bytes, and its logarithmic probability in the model's own distribution."""

    token: int
    content: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A sampled token, and the likeliest ones in its place, best first."""

    chosen: RankedToken
    top: tuple[RankedToken, ...]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One sampled token. `text` is what can be added to the text of its choice: it may be empty
    while a character is incomplete or a stop string may have begun, and then comes later.

    `logprobs` are those of the tokens that `text` completes, if they were asked for.
    """

    request_id: str
    token: int
    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """The last event of a choice while others of its request still run."""

    request_id: str
    choice: int
    reason: FinishReason
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that ran: that of its only choice, or of the last to end.

    `text` and `logprobs` are what was still held back. `usage` counts all choices.
    """

    request_id: str
    reason: FinishReason
    text: str
    usage: Usage
    choice: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request that the engine gave up with all its choices; others go on.

    `retry_after_s` is set where nothing was wrong but time: it waited too long for a row.
    """

    request_id: str
    message: str
    retry_after_s: float | None = None


Event = Started | TokenEvent | ChoiceFinished | Finished | Failed
