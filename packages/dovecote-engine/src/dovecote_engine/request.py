"""What a caller hands to the engine, and what comes back: plain values, no behaviour.

Does not know HTTP, MLX or the pool. These are the only engine names that `dovecote_http` needs
beside the `Engine` itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one row chooses its next token. `temperature` 0 is greedy; the rest is then unused."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to compute.

    `prompt` holds token ids, at least one. `max_tokens` None means: up to the model's context.
    Requests of one agent run one at a time, in the order of their submission; those without an
    agent run as slots allow.
    """

    id: str
    prompt: tuple[int, ...]
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request. `cached_tokens` of the `prompt_tokens` came from the pool."""

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
    header may say is known."""

    request_id: str
    cached_tokens: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One sampled token. `text` is what it adds to the text so far; it may be empty while a
    character is incomplete."""

    request_id: str
    token: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that ran. `text` is what the detokenizer still held back."""

    request_id: str
    reason: FinishReason
    text: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request that the engine had to give up; the others go on."""

    request_id: str
    message: str


Event = Started | TokenEvent | Finished | Failed
