"""The slab under mlx-lm's cache protocol: what a model sees of its K and V during one forward.

A model asks its cache for `offset` (where its tokens stand, for RoPE), `make_mask` and
`update_and_fetch`. One `LayerCache` a layer lives as long as the engine; a `Cursor`, set for each
forward, says which rows and positions that forward is about.

Does not know sequences or sampling. Engine thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import mlx.core as mx
from mlx_lm.models.cache import create_attention_mask

if TYPE_CHECKING:
    from dovecote_engine.slab import Slab

Mask = mx.array | str | None


class Cursor(Protocol):
    """Which rows and positions one forward writes and reads."""

    @property
    def offset(self) -> int | mx.array:
        """Position of the forward's first token: one for all rows, or one a row, int32 [R]."""

    def store(self, plane: mx.array, fresh: mx.array) -> mx.array:
        """Writes K or V [R, H, T, D] into the plane, in place; what attention shall read."""

    def mask(self, *, return_array: bool, window_size: int | None) -> Mask:
        """Which positions each query may see; None when all of them."""


class ChunkCursor:
    """Positions [start, end) of one row: a piece of its prompt."""

    def __init__(self, row: int, start: int, end: int) -> None:
        self.offset = start
        self._row = row
        self._end = end

    def store(self, plane: mx.array, fresh: mx.array) -> mx.array:
        """Writes [1, H, end - start, D]; the row up to `end`."""
        if fresh.shape == plane.shape:
            # MLX takes an assignment to all of an array as its replacement, strides and all; but
            # the model's K and V are transposed, and the pool reads contiguous rows.
            fresh = mx.contiguous(fresh)
        row = slice(self._row, self._row + 1)
        plane[row, :, self.offset : self._end] = fresh
        return plane[row, :, : self._end]

    def mask(self, *, return_array: bool, window_size: int | None) -> Mask:
        """As mlx-lm's own cache has it: causal, after what is there already."""
        mask: Mask = create_attention_mask(
            self._end - self.offset, self.offset, return_array, window_size
        )
        return mask


class DecodeCursor:
    """One token for each of the rows [0, R), each at its own length."""

    def __init__(self, lengths: list[int]) -> None:
        self.offset = mx.array(lengths, mx.int32)
        self._lengths = lengths
        self._rows = mx.arange(len(lengths))
        self._end = max(lengths) + 1
        self._masks: dict[int | None, mx.array | None] = {}

    def store(self, plane: mx.array, fresh: mx.array) -> mx.array:
        """Scatters [R, H, 1, D]; the rows up to the longest one's new token."""
        plane[self._rows, :, self.offset] = fresh[:, :, 0]
        return plane[: len(self._lengths), :, : self._end]

    def mask(self, *, return_array: bool, window_size: int | None) -> Mask:  # noqa: ARG002
        """One mask for all layers of a kind, and none while every row is equally long."""
        if window_size not in self._masks:
            self._masks[window_size] = self._build_mask(window_size)
        return self._masks[window_size]

    def _build_mask(self, window_size: int | None) -> mx.array | None:
        """Booleans [R, 1, 1, end]; position `length` is the new token itself."""
        ragged = min(self._lengths) + 1 < self._end
        windowed = window_size is not None and window_size < self._end
        if not ragged and not windowed:
            return None
        positions = mx.arange(self._end)[None, None, None]
        newest = self.offset[:, None, None, None]
        mask = positions <= newest
        if window_size is not None and windowed:
            mask = mask & (newest < positions + window_size)
        return mask


class LayerCache:
    """One layer of the slab, as mlx-lm's models call it."""

    def __init__(self, slab: Slab, layer: int) -> None:
        self._slab = slab
        self._layer = layer
        self.cursor: Cursor = ChunkCursor(0, 0, 0)

    @property
    def offset(self) -> int | mx.array:
        """Position of the forward's first token."""
        return self.cursor.offset

    @property
    def state(self) -> tuple[mx.array, mx.array]:
        """K and V of the layer, of all rows."""
        return self._slab.keys[self._layer], self._slab.values[self._layer]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Takes the new tokens' K and V; returns those of every position they may attend to."""
        store = self.cursor.store
        return (
            store(self._slab.keys[self._layer], keys),
            store(self._slab.values[self._layer], values),
        )

    def make_mask(
        self, count: int, *, return_array: bool = False, window_size: int | None = None
    ) -> Mask:
        """The mask of a forward over `count` tokens, which the cursor knows already."""
        del count
        return self.cursor.mask(return_array=return_array, window_size=window_size)

    def empty(self) -> bool:
        """Never: the slab is there before the first token."""
        return False


def layer_caches(slab: Slab) -> list[LayerCache]:
    """A cache for each layer of the slab."""
    return [LayerCache(slab, layer) for layer in range(slab.layers)]
