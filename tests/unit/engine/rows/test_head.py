from __future__ import annotations

from typing import Any

import mlx.core as mx
from tiny_engine import GEOMETRY, VOCABULARY, tiny_model

from dovecote_engine.rows.head import LastLogits
from dovecote_engine.rows.layer_cache import ChunkCursor, layer_caches
from dovecote_engine.rows.slab import Slab

TOKENS = [[5, 9, 81, 2]]


class Scaled:
    """A model that does something to its logits after the head, as some of mlx-lm's do."""

    def __init__(self, scale: float) -> None:
        self.model = tiny_model().model
        self.lm_head = tiny_model().lm_head
        self._scale = scale

    def __call__(self, tokens: mx.array, cache: object = None) -> mx.array:
        logits: mx.array = self.lm_head(self.model(tokens, cache))
        return logits * self._scale


class Opaque:
    """A model whose parts have other names."""

    def __call__(self, tokens: mx.array, cache: object = None) -> mx.array:
        logits: mx.array = tiny_model()(tokens, cache)
        return logits


def _logits(model: Any) -> tuple[LastLogits, mx.array]:
    slab = Slab(GEOMETRY, 1 << 30)
    slab.reserve(1, 8)
    caches = layer_caches(slab)
    for cache in caches:
        cache.cursor = ChunkCursor(0, 0, 4)
    last = LastLogits(model)
    return last, last(mx.array(TOKENS), caches)


def test_an_ordinary_model_computes_its_head_for_one_position() -> None:
    """Split or whole, the logits are the model's own."""
    last, logits = _logits(tiny_model())
    assert last.is_split
    assert last.vocabulary == VOCABULARY
    assert mx.allclose(logits, tiny_model()(mx.array(TOKENS))[:, -1], rtol=1e-4, atol=1e-4)


def test_a_model_that_scales_its_logits_is_run_whole() -> None:
    """The split is refused where it would change the logits."""
    last, logits = _logits(Scaled(0.5))
    assert not last.is_split
    assert mx.allclose(logits, 0.5 * tiny_model()(mx.array(TOKENS))[:, -1], rtol=1e-4, atol=1e-4)


def test_a_model_of_unknown_parts_is_run_whole() -> None:
    """Any callable of mlx-lm's kind will do."""
    last, logits = _logits(Opaque())
    assert not last.is_split
    assert logits.shape == (1, VOCABULARY)
