"""The slab under mlx-lm's cache protocol: what a model sees of its K and V during one forward.

A model asks its cache for `offset` (where its tokens stand, for RoPE), `make_mask` and
`update_and_fetch`. One `LayerCache` a layer lives as long as the engine; a `Cursor`, set for each
forward, says which rows and positions that forward is about.

Does not know sequences or sampling. Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import mlx.core as mx
from mlx_lm.models.cache import create_attention_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dovecote_engine.rows.slab import Slab

Mask = mx.array | str | None


@dataclass(frozen=True, slots=True)
class Ring:
    """Where a windowed layer keeps position p: at p modulo `positions`."""

    positions: int = 0
    """0: it keeps all of them, each at its own place."""
    window: int = 0
    """How many positions a token attends to, its own included."""

    def laps(self, start: int, end: int) -> Iterator[tuple[int, slice]]:
        """The pieces of positions [start, end) that lie side by side: first position, places."""
        while start < end:
            place = start % self.positions
            count = min(end - start, self.positions - place)
            yield start, slice(place, place + count)
            start += count


NO_RING: Final = Ring()


class Cursor(Protocol):
    """Which rows and positions one forward writes and reads, in a layer with that ring or none."""

    @property
    def offset(self) -> int | mx.array:
        """Position of the forward's first token: one for all rows, or one a row, int32 [R]."""

    def store(self, plane: mx.array, fresh: mx.array, ring: Ring = NO_RING) -> mx.array:
        """Writes K or V [R, H, T, D] into the plane, in place; what attention shall read."""

    def mask(self, *, return_array: bool, window_size: int | None, ring: Ring = NO_RING) -> Mask:
        """Which of what `store` gives each query may see; None when all of it."""

    @property
    def places(self) -> tuple[int, Sequence[int]]:
        """The first row, and the position of the forward's first token in each row."""

    def implies(self, mask: Mask) -> bool:
        """Whether the mask says no more than that no query sees what comes after it."""


class ChunkCursor:
    """Positions [start, end) of one row: a piece of its prompt."""

    def __init__(self, row: int, start: int, end: int) -> None:
        self.offset = start
        self._row = row
        self._end = end

    @property
    def places(self) -> tuple[int, Sequence[int]]:
        """One row."""
        return self._row, (self.offset,)

    def implies(self, mask: Mask) -> bool:
        """A single token needs no mask."""
        if isinstance(mask, str):
            return mask == "causal"
        return mask is None and self._end - self.offset == 1

    def store(self, plane: mx.array, fresh: mx.array, ring: Ring = NO_RING) -> mx.array:
        """Writes [1, H, end - start, D]; the row up to `end`, from where a window begins."""
        if fresh.shape == plane.shape:
            # MLX takes an assignment to all of an array as its replacement, strides and all; but
            # the model's K and V are transposed, and the pool reads contiguous rows.
            fresh = mx.contiguous(fresh)
        row = slice(self._row, self._row + 1)
        if not ring.positions:
            plane[row, :, self.offset : self._end] = fresh
            return plane[row, :, : self._end]
        for start, places in ring.laps(self.offset, self._end):
            count = places.stop - places.start
            plane[row, :, places] = fresh[:, :, start - self.offset : start - self.offset + count]
        first = max(0, self.offset - ring.window + 1)
        pieces = [plane[row, :, places] for _, places in ring.laps(first, self._end)]
        return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces, axis=2)

    def mask(self, *, return_array: bool, window_size: int | None, ring: Ring = NO_RING) -> Mask:
        """As mlx-lm's own caches have it: causal, after what is there already."""
        count, offset = self._end - self.offset, self.offset
        if ring.positions and window_size is not None:
            offset = min(offset, ring.window - 1)
            if offset + count <= window_size and not return_array:
                window_size = None
        mask: Mask = create_attention_mask(count, offset, return_array, window_size)
        return mask


class DecodeCursor:
    """One token for each of the rows [0, R), each at its own length."""

    def __init__(self, lengths: list[int]) -> None:
        self.offset = mx.array(lengths, mx.int32)
        self._lengths = lengths
        self._rows = mx.arange(len(lengths))
        self._end = max(lengths) + 1
        self._masks: dict[tuple[int | None, Ring], mx.array | None] = {}
        self._places: dict[Ring, mx.array] = {NO_RING: self.offset}

    @property
    def places(self) -> tuple[int, Sequence[int]]:
        """All rows from the first."""
        return 0, self._lengths

    def implies(self, mask: Mask) -> bool:
        """The mask that was made for layers without a window, or none that is needed."""
        if mask is None:
            return min(self._lengths) + 1 == self._end
        return mask is self._masks.get((None, NO_RING))

    def store(self, plane: mx.array, fresh: mx.array, ring: Ring = NO_RING) -> mx.array:
        """Scatters [R, H, 1, D]; the rows up to the longest one's new token, or all of a ring."""
        if ring not in self._places:
            self._places[ring] = self.offset % ring.positions
        plane[self._rows, :, self._places[ring]] = fresh[:, :, 0]
        return plane[: len(self._lengths), :, : self._extent(ring)]

    def mask(
        self,
        *,
        return_array: bool,  # noqa: ARG002 - as mlx-lm's
        window_size: int | None,
        ring: Ring = NO_RING,
    ) -> Mask:
        """One mask for all layers of a kind, and none while every row is equally long."""
        kind = (window_size, ring)
        if kind not in self._masks:
            self._masks[kind] = self._build_mask(window_size, ring)
        return self._masks[kind]

    def _extent(self, ring: Ring) -> int:
        return min(self._end, ring.positions or self._end)

    def _build_mask(self, window_size: int | None, ring: Ring) -> mx.array | None:
        """Booleans [R, 1, 1, extent]; position `length` is the new token itself.

        In a ring the age of a place's token follows from how far the newest one's place is ahead;
        ages beyond the row's length are of places that the row has not reached.
        """
        ragged = min(self._lengths) + 1 < self._end
        windowed = window_size is not None and window_size < self._end
        if not ragged and not windowed:
            return None
        ages = self.offset[:, None, None, None] - mx.arange(self._extent(ring))[None, None, None]
        newest = self.offset[:, None, None, None]
        mask = ages >= 0
        if ring.positions:
            ages = ages % ring.positions
            mask = ages <= newest
        if window_size is not None and windowed:
            mask = mask & (ages < window_size)
        return mask


class JointCursor:
    """A token for each of the rows [0, R), and positions [start, end) of a row behind them.

    The forward has R + end - start sequences of one token. Only where attention is computed in
    parts, each by a cursor of its own, so there is nothing to store or to mask here.
    """

    def __init__(self, lengths: list[int], row: int, start: int, end: int) -> None:
        self.offset = mx.array([*lengths, *range(start, end)], mx.int32)
        self.rows = len(lengths)
        self.decode = DecodeCursor(lengths)
        self.chunk = ChunkCursor(row, start, end)

    @property
    def places(self) -> tuple[int, Sequence[int]]:
        """Those of its parts are two: there is no one answer."""
        raise NotImplementedError

    def implies(self, mask: Mask) -> bool:
        """Each query has a sequence of its own: no mask."""
        return mask is None

    def store(self, plane: mx.array, fresh: mx.array, ring: Ring = NO_RING) -> mx.array:
        """Not in parts: whoever asks cannot take part."""
        raise NotImplementedError

    def mask(self, *, return_array: bool, window_size: int | None, ring: Ring = NO_RING) -> Mask:
        """None: what a query may see follows from its position."""
        del return_array, window_size, ring
        return None


class LayerCache:
    """One layer of the slab, as mlx-lm's models call it."""

    def __init__(self, slab: Slab, layer: int) -> None:
        self._slab = slab
        self._layer = layer
        self._ring = Ring(slab.rings[layer], slab.windows[layer])
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
            store(self._slab.keys[self._layer], keys, self._ring),
            store(self._slab.values[self._layer], values, self._ring),
        )

    def make_mask(
        self, count: int, *, return_array: bool = False, window_size: int | None = None
    ) -> Mask:
        """The mask of a forward over `count` tokens, which the cursor knows already.

        A windowed layer has a window whether the model asks for one or not.
        """
        del count
        if own := self._ring.window:
            window_size = min(window_size or own, own)
        return self.cursor.mask(return_array=return_array, window_size=window_size, ring=self._ring)

    def empty(self) -> bool:
        """Never: the slab is there before the first token."""
        return False


def layer_caches(slab: Slab) -> list[LayerCache]:
    """A cache for each layer of the slab."""
    return [LayerCache(slab, layer) for layer in range(slab.layers)]
