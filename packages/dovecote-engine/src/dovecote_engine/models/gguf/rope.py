"""Llama 3's rotary scaling, recognised from the factors that a GGUF file has in its place.

A model's configuration names four numbers; GGUF keeps only what they come to for each frequency, as
the tensor `rope_freqs.weight`. Three of the four are the same in every Llama 3.1, 3.2 and 3.3, so
they are assumed and the assumption is checked against every factor. Does not know files.

Formula: https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_rope_utils.py
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from dovecote_engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["llama3_scaling"]

_LOW: Final = 1.0
_HIGH: Final = 4.0
_ORIGINAL_TOKENS: Final = 8192


def llama3_scaling(factors: Sequence[float], theta: float) -> dict[str, object]:
    """The `rope_scaling` of a configuration that gives `factors`, one for each pair of a head.

    Raises: ModelError if Llama 3's scaling does not give them.
    """
    factor = round(max(factors, default=0.0), 3)
    expected = [_factor(n / len(factors), theta, factor) for n in range(len(factors))]
    if factor < 1 or not all(map(_is_close, factors, expected)):
        message = "the GGUF rotary factors (rope_freqs.weight) are not those of a Llama 3"
        raise ModelError(message)
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": _ORIGINAL_TOKENS,
    }


def _factor(exponent: float, theta: float, factor: float) -> float:
    """What the wavelength of the frequency `theta ** -exponent` is multiplied by."""
    turns = _ORIGINAL_TOKENS / (2 * math.pi * math.pow(theta, exponent))
    if turns > _HIGH:
        return 1.0
    if turns < _LOW or factor < 1:
        return factor
    smooth = (turns - _LOW) / (_HIGH - _LOW)
    return 1 / ((1 - smooth) / factor + smooth)


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-3)
