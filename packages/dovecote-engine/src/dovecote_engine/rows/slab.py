"""The dense K and V of the running batch: one MLX array a layer and side.

Letters of this package: R rows, L layers, H kv heads, T tokens, D head dim, B tokens of a block,
V vocabulary. A slab array is [R, H, capacity, D] in the model's dtype:

    row 0      [0, length)  K or V of a sequence's tokens      owner: its Sequence
               [length, capacity)  finite leftovers            masked out by every reader
    row 1      ...
    row R - 1

A layer with a window keeps no more than a ring: position p lies at p modulo the ring's length,
which is the window and the longest chunk, in whole blocks, so that a chunk finds all it attends to
and its blocks can be sealed afterwards. While the capacity is less than the ring, so is the plane.

S1  A position at or past its row's length holds a finite number: attention multiplies it by a zero
    weight, and zero times NaN is NaN. Fresh memory is zeroed; a row that failed is cleared.
S2  No buffer view outlives the call that made it: MLX updates an array in place only while nobody
    else holds its buffer, and would copy the whole slab otherwise.
S3  What the rows take (rows * capacity * bytes of a token, less what rings spare) stays within the
    budget, as long as callers ask `can_reserve` before they promise a row.
S4  While it grows in slices, some planes have the new shape already and the others the old one:
    every plane has at least `rows` rows of `capacity` positions (or of a ring), in which nothing
    has moved.
S5  A row of length n holds the last positions of each windowed layer, as many as its ring has; one
    that began in the pool, those from its lease's `resume_block` on.

Does not know sequences, the pool's index or the model. Engine thread only.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from dovecote_cache import RowPlanes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from dovecote_cache import Geometry, Lease

# More tokens than any context: where the search for the longest row begins.
_MOST_TOKENS = 1 << 30
# Growing copies the slab; steps keep that rare: 256 tokens is what mlx-lm's own cache uses.
CAPACITY_STEP_TOKENS = 256


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _ring(window: int, chunk_tokens: int, geometry: Geometry) -> int:
    """Positions of a windowed layer's ring: what a chunk sees, or what of it is still unsealed."""
    if not window:
        return 0
    block_tokens = geometry.block_tokens
    return _round_up(max(window, block_tokens) + chunk_tokens, block_tokens)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _buffer(array: mx.array) -> memoryview:
    """The bytes of an evaluated array, writable, without a copy. bfloat16 has no buffer format."""
    exporter: Any = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
    return memoryview(exporter)


@contextmanager
def _elements(*arrays: mx.array) -> Iterator[list[npt.NDArray[np.generic]]]:
    """The arrays as numpy arrays over the same memory, until the block ends (S2)."""
    views = [_buffer(array) for array in arrays]
    elements = [np.asarray(view) for view in views]
    try:
        yield elements
    finally:
        elements.clear()
        views.clear()


class Slab:
    """Rows of K and V that grow in steps within a byte budget."""

    rows: int
    capacity: int
    _target: tuple[int, int]

    def __init__(self, geometry: Geometry, budget_bytes: int, chunk_tokens: int = 512) -> None:
        """`chunk_tokens`: no forward over one row has more."""
        self._dtype: mx.Dtype = getattr(mx, geometry.dtype)
        self._block_tokens = geometry.block_tokens
        self._shapes = [(shape.kv_heads, shape.k_dim, shape.v_dim) for shape in geometry.layers]
        self._budget_bytes = budget_bytes
        self.chunk_tokens = chunk_tokens
        self.windows = [shape.window for shape in geometry.layers]
        self.rings = [_ring(window, chunk_tokens, geometry) for window in self.windows]
        sizes = [shape.elements_per_token * geometry.element_bytes for shape in geometry.layers]
        self._token_bytes = sum(
            size for size, ring in zip(sizes, self.rings, strict=True) if not ring
        )
        self._ring_bytes = [
            (ring, size) for size, ring in zip(sizes, self.rings, strict=True) if ring
        ]
        self.reset()

    @property
    def layers(self) -> int:
        """Layers that keep K and V."""
        return len(self._shapes)

    @property
    def block_tokens(self) -> int:
        """Tokens of a block of the pool."""
        return self._block_tokens

    @property
    def planes(self) -> int:
        """Arrays of the slab: K and V of each layer."""
        return 2 * len(self._shapes)

    @property
    def bytes(self) -> int:
        """The memory that the slab takes now."""
        return sum(plane.nbytes for plane in (*self.keys, *self.values))

    @property
    def row_limit_tokens(self) -> int:
        """The longest row that fits into the budget alone."""
        capacities = range(CAPACITY_STEP_TOKENS, _MOST_TOKENS, CAPACITY_STEP_TOKENS)
        fitting = bisect_right(
            capacities, self._budget_bytes, key=lambda capacity: self._bytes(1, capacity)
        )
        return fitting * CAPACITY_STEP_TOKENS

    def can_reserve(self, rows: int, tokens: int) -> bool:
        """Whether that many rows of that many tokens fit into the budget."""
        return self._bytes(rows, _round_up(tokens, CAPACITY_STEP_TOKENS)) <= self._budget_bytes

    def holds(self, rows: int, tokens: int) -> bool:
        """Whether there is room for that many rows of that many tokens now."""
        return rows <= self.rows and tokens <= self.capacity

    def reserve(self, rows: int, tokens: int) -> None:
        """Makes room for that many rows of that many tokens at once; what the rows hold stays."""
        self.grow(rows, tokens, self.planes)

    def grow(self, rows: int, tokens: int, planes: int) -> int:
        """Brings up to `planes` more planes to a shape with that room; returns how many it was.

        The room is there once `holds` says so; until then the rows that run lose nothing (S4).
        Grows beyond what is asked for (rows to a power of two, capacity by a quarter) where the
        budget allows, so that the next rows and tokens cost no copy. Where it allows less than the
        rows that are there, rows beyond those asked for are given up, and all at once.
        """
        if self.holds(rows, tokens):
            return 0
        target_rows, target_capacity = self._target
        if rows > target_rows or tokens > target_capacity:
            self._target = self._shape_for(rows, tokens)
            self._grown = 0
        if self._target[0] < self.rows:
            planes = self.planes
        end = min(self.planes, self._grown + planes)
        grown = end - self._grown
        self._grow_planes(self._grown, end)
        self._grown = end
        if end == self.planes:
            self.rows, self.capacity = self._target
        return grown

    def reset(self) -> None:
        """Gives all memory back. Every row is lost."""
        self.rows = 0
        self.capacity = 0
        self._target = (0, 0)
        self._grown = 0
        self.keys = [mx.zeros((0, heads, 0, dim), self._dtype) for heads, dim, _ in self._shapes]
        self.values = [mx.zeros((0, heads, 0, dim), self._dtype) for heads, _, dim in self._shapes]
        mx.clear_cache()

    def settle(self) -> None:
        """Evaluates whatever a forward left pending."""
        mx.eval(self.keys, self.values)

    @contextmanager
    def row_planes(self, row: int) -> Iterator[RowPlanes]:
        """The memory of one row for the pool to read or write, until the block ends (S2)."""
        self.settle()
        keys = [_buffer(array) for array in self.keys]
        values = [_buffer(array) for array in self.values]
        try:
            with RowPlanes(keys, values, row, self.rings) as planes:
                yield planes
        finally:
            for view in (*keys, *values):
                view.release()

    def restore(self, lease: Lease, row: int, start_block: int, end_block: int) -> int:
        """Decodes matched blocks into a row; the tokens that the lease still covers.

        Where these are fewer than before, the row's rings are empty: see `Lease.decode`.
        """
        tokens = lease.tokens
        with self.row_planes(row) as planes:
            valid = lease.decode(planes, start_block, end_block)
        if valid < tokens:
            # A damaged block may have left anything behind (S1).
            self.clear_row(row, valid)
        return valid

    def resumable(self, lease: Lease, tokens: int) -> int:  # noqa: ARG002 - as `RecurrentRows`
        """All that was matched: K and V can be gone on from at any token."""
        return tokens

    def stop(self, resumed: int, matched: int, prompt_tokens: int) -> int:  # noqa: ARG002
        """Nowhere: K and V of every position stay."""
        return 0

    def resume(self, lease: Lease, row: int, tokens: int, ids: Sequence[int]) -> int:  # noqa: ARG002
        """There is nothing beside the blocks."""
        return tokens

    def is_sound(self, row: int, start: int, end: int) -> mx.array:
        """Whether the last layer's keys at positions [start, end) are finite. Unevaluated."""
        keys, ring = self.keys[-1][row], self.rings[-1]
        return mx.all(mx.isfinite(keys if ring else keys[:, start:end]))

    def move_row(self, source: int, target: int, tokens: int) -> None:
        """Copies the first `tokens` positions of a row over another one.

        Without positions there is no copy: the row may not be there yet.
        """
        if not tokens:
            return
        for plane in self._settled_planes():
            with _elements(plane) as (memory,):
                memory[target, :, :tokens] = memory[source, :, :tokens]
                del memory

    def swap_rows(self, one: int, other: int, tokens: int) -> None:
        """Exchanges the first `tokens` positions of two rows."""
        for plane in self._settled_planes():
            with _elements(plane) as (memory,):
                kept = memory[one, :, :tokens].copy()
                memory[one, :, :tokens] = memory[other, :, :tokens]
                memory[other, :, :tokens] = kept
                del memory

    def clear_row(self, row: int, start: int = 0) -> None:
        """Zeroes a row from a position on, and its rings, whatever bytes they held (S1)."""
        for place, plane in enumerate(self._settled_planes()):
            ring = self.rings[place % self.layers]
            with _elements(plane) as (memory,):
                memory[row, :, 0 if ring else start :] = 0
                del memory

    def _bytes(self, rows: int, capacity: int) -> int:
        rings = sum(min(ring, capacity) * size for ring, size in self._ring_bytes)
        return rows * (capacity * self._token_bytes + rings)

    def _settled_planes(self) -> Iterator[mx.array]:
        self.settle()
        yield from self.keys
        yield from self.values

    def _shape_for(self, rows: int, tokens: int) -> tuple[int, int]:
        """Rows and capacity to grow to: the most generous that fits the budget."""
        needed = _round_up(tokens, CAPACITY_STEP_TOKENS)
        generous = max(self.capacity, needed)
        if tokens > self.capacity > 0:
            generous = max(needed, _round_up(self.capacity * 5 // 4, CAPACITY_STEP_TOKENS))
        shapes = (
            (max(self.rows, _power_of_two(rows)), generous),
            (max(self.rows, rows), max(self.capacity, needed)),
            (rows, max(self.capacity, needed)),
        )
        fitting = (shape for shape in shapes if self._bytes(*shape) <= self._budget_bytes)
        return next(fitting, (rows, needed))

    def _grow_planes(self, start: int, end: int) -> None:
        """One plane at a time, so that the peak is one plane above the budget."""
        self.settle()
        for place in range(start, end):
            side = (self.keys, self.values)[place % 2]
            layer, (rows, capacity) = place // 2, self._target
            ring = self.rings[layer]
            positions = min(capacity, ring) if ring else capacity
            side[layer] = self._resized(side[layer], rows, positions)
        mx.clear_cache()

    def _resized(self, plane: mx.array, rows: int, capacity: int) -> mx.array:
        if plane.shape[0] == rows and plane.shape[2] == capacity:
            return plane
        fresh = mx.zeros((rows, plane.shape[1], capacity, plane.shape[3]), self._dtype)
        mx.eval(fresh)
        kept_rows, kept = min(rows, plane.shape[0]), min(capacity, plane.shape[2])
        if kept_rows and kept:
            with _elements(fresh, plane) as (target, source):
                target[:kept_rows, :, :kept] = source[:kept_rows, :, :kept]
                del target, source
        return fresh
