"""Values of a GGUF file that every architecture reads alike: sizes, decimals, quantisation.

Does not know names or architectures.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import mlx.core as mx

from dovecote_engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dovecote_engine.models.gguf.header import GgufHeader, Value

__all__ = ["half", "quantization", "real_of", "size_of", "vocabulary_of"]

_GROUP_SIZE: Final = 32
_LARGEST: Final = 1 << 31


def size_of(metadata: Mapping[str, Value], key: str, default: int | None = None) -> int:
    """A positive number of the metadata. Raises: ModelError, naming the key."""
    value = metadata.get(key, default)
    if isinstance(value, int) and 0 < value < _LARGEST:
        return value
    message = f"GGUF metadata {key} is {value!r}, not a positive integer"
    raise ModelError(message)


def real_of(metadata: Mapping[str, Value], key: str, default: float | None) -> float:
    """A float32 of the file as the decimal it was made from: 1e-05, not 9.999999747e-06.

    Raises: ModelError, naming the key.
    """
    value = metadata.get(key, default)
    if isinstance(value, int | float) and 0 < value < float("inf"):
        return float(f"{value:.7g}")
    message = f"GGUF metadata {key} is {value!r}, not a positive number"
    raise ModelError(message)


def vocabulary_of(header: GgufHeader) -> int:
    """Rows of the embedding. Raises: ModelError if there is none."""
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight":
            return tensor.shape[-1]
    message = "the file has no token embedding"
    raise ModelError(message)


def half(tensor: mx.array) -> mx.array:
    """Floating numbers as float16, others as they are."""
    return tensor.astype(mx.float16) if mx.issubdtype(tensor.dtype, mx.floating) else tensor


def quantization(weights: Mapping[str, mx.array]) -> dict[str, object]:
    """mlx-lm's quantisation table: the most frequent width, and the modules that differ by name.

    Empty if nothing is quantised.
    """
    bits = {
        name.removesuffix(".scales"): _bits(weights, name.removesuffix(".scales"))
        for name in weights
        if name.endswith(".scales")
    }
    if not bits:
        return {}
    usual = Counter(bits.values()).most_common(1)[0][0]
    table: dict[str, object] = {"group_size": _GROUP_SIZE, "bits": usual}
    for module, width in bits.items():
        if width != usual:
            table[module] = {"group_size": _GROUP_SIZE, "bits": width}
    return table


def _bits(weights: Mapping[str, mx.array], module: str) -> int:
    words = weights[f"{module}.weight"].shape[-1]
    return words * 32 // (weights[f"{module}.scales"].shape[-1] * _GROUP_SIZE)
