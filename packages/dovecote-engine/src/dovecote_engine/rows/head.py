"""Finds a model's head, so that a prompt's logits are computed for its last position only.

mlx-lm's models compute logits for every position they are given. For SmolLM2's vocabulary of 49,152
that is a third of a chunk's work, all of it thrown away but for one position. Most models are an
inner module that ends in hidden states and a linear head (their own, or the embedding); some scale
or cap the logits after it. So the split is tried once and used only if it gives the same logits.

Engine thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlx import nn

    from dovecote_engine.rows.layer_cache import LayerCache

# Both ways run the same head over one or two positions: they differ by the rounding of the matmul.
_TOLERANCE = 1e-2


class LastLogits:
    """Logits [R, V] of the last position of tokens [R, T]."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        tokens = mx.array([[0, 1]])
        logits = model(tokens)[:, -1]
        self.vocabulary = int(logits.shape[-1])
        self._split = _matching_split(model, tokens, logits)

    @property
    def is_split(self) -> bool:
        """Whether the head runs over the last position only."""
        return self._split is not None

    def __call__(self, tokens: mx.array, caches: Sequence[LayerCache]) -> mx.array:
        """Writes the tokens' K and V through the caches; the logits, unevaluated."""
        if self._split is None:
            whole: mx.array = self._model(tokens, cache=caches)
            return whole[:, -1]
        inner, head = self._split
        return head(inner(tokens, cache=caches)[:, -1])

    def of_rows(
        self, tokens: mx.array, caches: Sequence[LayerCache], rows: Sequence[int]
    ) -> mx.array:
        """As a call, for some of the rows only."""
        chosen = mx.array([*rows])
        if self._split is None:
            whole: mx.array = self._model(tokens, cache=caches)
            return whole[chosen, -1]
        inner, head = self._split
        return head(inner(tokens, cache=caches)[chosen, -1])


def _candidate(model: nn.Module) -> tuple[Callable[..., mx.array], Callable[..., mx.array]] | None:
    """The inner module and the head, under the names that mlx-lm's models give them."""
    outer: Any = getattr(model, "language_model", model)
    inner = getattr(outer, "model", None)
    embedding = getattr(inner, "embed_tokens", None)
    head = getattr(outer, "lm_head", None) or getattr(embedding, "as_linear", None)
    if inner is None or head is None:
        return None
    return inner, head


def _matching_split(
    model: nn.Module, tokens: mx.array, logits: mx.array
) -> tuple[Callable[..., mx.array], Callable[..., mx.array]] | None:
    split = _candidate(model)
    if split is None:
        return None
    inner, head = split
    try:
        found = head(inner(tokens)[:, -1])
        close = mx.allclose(found, logits, rtol=_TOLERANCE, atol=_TOLERANCE)
        return split if found.shape == logits.shape and bool(close.item()) else None
    except (AttributeError, TypeError, ValueError):
        return None
