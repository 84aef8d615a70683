from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache
from tiny_engine import GEOMETRY, tiny_model

from dovecote_engine.rows.layer_cache import (
    ChunkCursor,
    Cursor,
    DecodeCursor,
    LayerCache,
    layer_caches,
)
from dovecote_engine.rows.slab import Slab


@pytest.fixture
def slab() -> Slab:
    slab = Slab(GEOMETRY, 1 << 30)
    slab.reserve(4, 64)
    return slab


def _at(caches: list[LayerCache], cursor: Cursor) -> list[LayerCache]:
    for cache in caches:
        cache.cursor = cursor
    return caches


def _tokens(count: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 100, count)]


def _close(found: mx.array, wanted: mx.array) -> bool:
    return bool(mx.allclose(found, wanted, rtol=1e-4, atol=1e-4).item())


def test_prefill_in_chunks_gives_the_logits_of_mlx_lm(slab: Slab) -> None:
    """Chunks of any row see exactly what mlx-lm's own cache shows."""
    model, tokens = tiny_model(), _tokens(37, 1)
    wanted = model(mx.array([tokens]), cache=make_prompt_cache(model))
    caches = layer_caches(slab)
    for start, end in ((0, 5), (5, 6), (6, 37)):
        _at(caches, ChunkCursor(2, start, end))
        found = model(mx.array([tokens[start:end]]), cache=caches)
        assert _close(found, wanted[:, start:end])


def test_rows_of_different_lengths_decode_as_if_alone(slab: Slab) -> None:
    """A ragged batch gives each row the logits that mlx-lm gives it alone, step after step."""
    model = tiny_model()
    rows = [_tokens(length, length) for length in (3, 41, 17)]
    caches = layer_caches(slab)
    for row, tokens in enumerate(rows):
        model(mx.array([tokens]), cache=_at(caches, ChunkCursor(row, 0, len(tokens))))
    for _ in range(4):
        lengths = [len(tokens) for tokens in rows]
        for tokens in rows:
            tokens.append((tokens[-1] * 7 + 1) % 100)
        newest = mx.array([tokens[-1:] for tokens in rows])
        found = model(newest, cache=_at(caches, DecodeCursor(lengths)))
        for row, tokens in enumerate(rows):
            alone = model(mx.array([tokens]), cache=make_prompt_cache(model))
            assert _close(found[row, -1], alone[0, -1])


def test_rows_of_equal_length_need_no_mask() -> None:
    """A mask is computed only where it hides something."""
    assert DecodeCursor([5, 5]).mask(return_array=False, window_size=None) is None
    assert DecodeCursor([5]).mask(return_array=False, window_size=6) is None
    assert DecodeCursor([5, 4]).mask(return_array=False, window_size=None) is not None


@pytest.mark.parametrize("window", (None, 1, 3, 100))
def test_a_decode_mask_is_the_causal_mask_of_each_row(window: int | None) -> None:
    """Row r sees the positions [length - window + 1, length] of its own."""
    lengths = [4, 0, 6]
    mask = DecodeCursor(lengths).mask(return_array=False, window_size=window)
    assert isinstance(mask, mx.array)
    for row, length in enumerate(lengths):
        least = 0 if window is None else length - window + 1
        wanted = [least <= position <= length for position in range(7)]
        assert mask[row, 0, 0].tolist() == wanted


def test_a_mask_is_made_once_a_step() -> None:
    """All layers of a kind share one mask."""
    cursor = DecodeCursor([1, 2])
    first = cursor.mask(return_array=False, window_size=None)
    assert cursor.mask(return_array=False, window_size=None) is first


def test_a_layer_shows_its_state(slab: Slab) -> None:
    """`state` is what mlx-lm evaluates, `offset` where the next token stands."""
    cache = layer_caches(slab)[1]
    cache.cursor = ChunkCursor(0, 3, 5)
    assert cache.offset == 3
    assert cache.state[0] is slab.keys[1]
    assert not cache.empty()
