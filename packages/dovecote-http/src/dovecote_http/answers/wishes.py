"""A body's wishes in the engine's words.

Does not know prompts or HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dovecote_engine.request import Sampling

if TYPE_CHECKING:
    from dovecote_http.answers.bodies import GenerationBody

__all__ = ["sampling_of"]

_SEED_MASK = 2**64 - 1
"""Clients send signed 64-bit seeds; random keys are made from unsigned ones."""


def sampling_of(body: GenerationBody) -> Sampling:
    """How the body wants its tokens chosen; what it leaves out is OpenAI's default."""
    return Sampling(
        temperature=_or(body.temperature, 1.0),
        top_p=_or(body.top_p, 1.0),
        seed=None if body.seed is None else body.seed & _SEED_MASK,
        top_k=max(0, body.top_k or 0),  # -1 stands for "all", too
        min_p=_or(body.min_p, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        logit_bias=tuple((body.logit_bias or {}).items()),
    )


def _or(wish: float | None, default: float) -> float:
    return default if wish is None else wish
