"""The CPU's own attention and gate behind mlx-lm's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.models import base, llama
from tiny_engine import GEOMETRY, random_model

from dovecote_engine.cpu.attention import AttendingCache, attending_caches
from dovecote_engine.cpu.kernels import find_kernels
from dovecote_engine.rows.layer_cache import ChunkCursor, DecodeCursor, LayerCache, layer_caches
from dovecote_engine.rows.slab import Slab

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.rows.layer_cache import Cursor

pytestmark = pytest.mark.skipif(find_kernels() is None, reason="MLX has its own kernels here")

TOKENS = [7 * n % 100 for n in range(90)]


def _slab(rows: int = 3) -> Slab:
    slab = Slab(GEOMETRY, 64 << 20)
    slab.reserve(rows, 100)
    return slab


def _forward(
    model: llama.Model, caches: Sequence[LayerCache], cursor: Cursor, tokens: list[list[int]]
) -> mx.array:
    for cache in caches:
        cache.cursor = cursor
    logits: mx.array = model(mx.array(tokens), cache=caches)
    mx.eval(logits)
    return logits


def _fill(model: llama.Model, caches: Sequence[LayerCache], row: int, ends: list[int]) -> mx.array:
    """A row up to the last of `ends`, a chunk each; the logits [1, V] of its last token."""
    for start, end in zip([0, *ends], ends, strict=False):
        logits = _forward(model, caches, ChunkCursor(row, start, end), [TOKENS[start:end]])
    return logits[:, -1]


def _equal(one: mx.array, other: mx.array) -> bool:
    return bool(mx.array_equal(one, other).item())


def _close(one: mx.array, other: mx.array) -> bool:
    return bool(mx.allclose(one, other, rtol=1e-3, atol=1e-3).item())


def test_logits_and_kv_are_those_of_mlx() -> None:
    """In a chunk, in the next one, and in a batch of rows of different lengths."""
    model = random_model()
    own, plain = _slab(), _slab()
    attending, reference = attending_caches(model, own), layer_caches(plain)
    assert all(isinstance(cache, AttendingCache) for cache in attending)
    for row, ends in enumerate(([40, 70], [3], [66])):
        found, wanted = (_fill(model, each, row, ends) for each in (attending, reference))
        assert _close(found, wanted)
    steps = [
        _forward(model, caches, DecodeCursor([70, 3, 66]), [[5], [6], [7]])
        for caches in (attending, reference)
    ]
    assert _close(*steps)
    for layer in range(2):
        for found, wanted in zip(attending[layer].state, reference[layer].state, strict=True):
            assert _close(found[0, :, :71], wanted[0, :, :71])
            assert _close(found[1, :, :4], wanted[1, :, :4])


def test_attention_depends_on_no_chunk_and_no_neighbour() -> None:
    """A token's result is the same to the bit in one chunk, in several, alone and in a batch."""
    kernels = find_kernels()
    assert kernels is not None
    rng = np.random.default_rng(1)
    queries, keys, values = (
        mx.array(rng.standard_normal((1, heads, 80, 32), dtype=np.float32)) for heads in (4, 2, 2)
    )
    whole: list[mx.array] = []
    for chunk in (80, 37, 1):
        slab, parts = _slab(), []
        for start in range(0, 80, chunk):
            end = min(80, start + chunk)
            here = (queries[:, :, start:end], keys[:, :, start:end], values[:, :, start:end])
            planes = slab.keys[0], slab.values[0]
            parts.append(kernels.attend(here, planes, (1, (start,)), 0.2))
        whole.append(mx.concatenate(parts, axis=2))
    assert _equal(whole[0], whole[1])
    assert _equal(whole[0], whole[2])
    rows, slab = (2, 0, 1), _slab()
    for row, length in enumerate((50, 79, 3)):
        slab.keys[0][row, :, :length] = keys[0, :, :length]
        slab.values[0][row, :, :length] = values[0, :, :length]
    last = [
        mx.concatenate([each[:, :, at : at + 1] for at in (50, 79, 3)])
        for each in (queries, keys, values)
    ]
    fresh = (last[0], last[1], last[2])
    batch = kernels.attend(fresh, (slab.keys[0], slab.values[0]), (0, (50, 79, 3)), 0.2)
    for row in rows:
        assert _equal(batch[row, :, 0], whole[0][0, :, (50, 79, 3)[row]])


def test_what_a_kernel_does_not_compute_goes_to_mlx() -> None:
    """A mask of the model's own, and sinks."""
    model = random_model()
    slab, plain = _slab(), _slab()
    (cache, _), (reference, _) = attending_caches(model, slab), layer_caches(plain)
    shapes = ((1, 4, 5, 32), (1, 2, 5, 32), (1, 2, 5, 32))
    queries, keys, values = (mx.random.normal(shape) for shape in shapes)
    window = mx.tri(5, dtype=mx.bool_) & ~mx.tri(5, k=-2, dtype=mx.bool_)
    wishes: list[tuple[Any, Any]] = [(window, None), ("causal", mx.ones(4)), (None, None)]
    for mask, sinks in wishes:
        results = []
        for each in (cache, reference):
            each.cursor = ChunkCursor(0, 0, 5)
            fetched = each.update_and_fetch(keys, values)
            attention: Any = vars(llama)["scaled_dot_product_attention"]
            results.append(attention(queries, *fetched, each, 0.2, mask, sinks))
        assert _close(*results)


class Careless(nn.Module):  # type: ignore[misc]
    """A model that attends in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = random_model()

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        hidden = self.inner.model.embed_tokens(tokens)
        for layer in cache:
            heads = hidden.reshape(*hidden.shape[:2], 2, 32).transpose(0, 2, 1, 3)
            keys, values = layer.update_and_fetch(heads, heads)
            mixed = mx.softmax(heads @ keys.transpose(0, 1, 3, 2), axis=-1) @ values
            hidden = hidden + mixed.transpose(0, 2, 1, 3).reshape(hidden.shape)
        logits: mx.array = self.inner.lm_head(hidden)
        return logits


def test_a_model_that_attends_by_itself_keeps_its_way() -> None:
    """It is tried once, and then over plain caches."""
    caches = attending_caches(Careless(), Slab(GEOMETRY, 64 << 20))
    assert not any(isinstance(cache, AttendingCache) for cache in caches)


def test_the_trial_leaves_an_empty_slab_empty() -> None:
    """Nothing of it is in the rows that come."""
    slab = Slab(GEOMETRY, 64 << 20)
    attending_caches(random_model(), slab)
    assert slab.bytes == 0


def test_mlx_lm_itself_is_not_touched() -> None:
    """Only the names in the model's own module are taken over."""
    attending_caches(random_model(), _slab())
    name = "scaled_dot_product_attention"
    assert vars(base)[name].__module__ == "mlx_lm.models.base"
    assert vars(llama)[name] is not vars(base)[name]


def test_gates_are_those_of_mlx() -> None:
    """Of any length, views with gaps included."""
    kernels = find_kernels()
    assert kernels is not None
    for count in (1, 15, 17, 4096, 70000):
        gate, up = 4 * mx.random.normal((2, count)), mx.random.normal((2, count))
        assert _close(kernels.swiglu(gate, up), nn.silu(gate) * up)
        assert _close(kernels.swiglu(gate.T, up.T), (nn.silu(gate) * up).T)


def test_impossible_positions_raise() -> None:
    """Nothing is written past a plane's end."""
    kernels, slab = find_kernels(), _slab()
    assert kernels is not None
    fresh = (mx.zeros((1, 4, 1, 32)), mx.zeros((1, 2, 1, 32)), mx.zeros((1, 2, 1, 32)))
    with pytest.raises(RuntimeError, match="not possible"):
        kernels.attend(fresh, (slab.keys[0], slab.values[0]), (0, (slab.capacity,)), 1.0)
