"""Rows of a model that keeps K and V in some layers and a recurrent state in others.

    K and V   blocks of the pool, as any model's: restored into mlx-lm's KVCache, sealed from it
    state     a checkpoint at a block's end: put back as a whole, or not at all

A state belongs to one position, so a row resumes where the pool has the blocks and `Checkpoints`
the state, and computes the rest. Each row has a forward of its own, as in `RowCaches`.

Does not know sequences or sampling. Engine thread only, but for the numbers and `resumable`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import ArraysCache, KVCache, make_prompt_cache

from dovecote_cache import Checkpoints, RowPlanes
from dovecote_engine.rows.row_caches import RowCaches, StateCost, flat
from dovecote_engine.rows.row_state import Snapshot, StateShape, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlx import nn

    from dovecote_cache import Geometry, Lease, Pool
    from dovecote_engine.rows.row_caches import Caches

__all__ = ["RecurrentRows"]

_ROOM_TOKENS = 256


class RecurrentRows(RowCaches):
    """Rows of mlx-lm's caches that the pool and its checkpoints can fill."""

    def __init__(self, model: nn.Module, budget_bytes: int, geometry: Geometry, pool: Pool) -> None:
        """`geometry`: of the layers that keep K and V. Runs the model over a few tokens.

        Raises: OSError from the checkpoints beside the pool.
        """
        super().__init__(model, budget_bytes, geometry.block_tokens)
        self._geometry = geometry
        self._dtype: mx.Dtype = getattr(mx, geometry.dtype)
        caches = make_prompt_cache(model)
        mx.eval(model(mx.array([[0]]), cache=caches))
        self.shape = StateShape.of(state_of(_recurrent(caches)))
        self.checkpoints = Checkpoints.beside(pool, self.shape.layout, self.shape.size_bytes)
        # A row that runs holds the state that it has and the last one to be kept.
        self._cost = StateCost(self._cost.row_bytes + self.shape.size_bytes, self._cost.token_bytes)

    def resumable(self, lease: Lease, tokens: int) -> int:
        """Up to where there is a checkpoint, as far as their names tell. Any thread."""
        blocks = self.checkpoints.longest(lease.chain, tokens // self.block_tokens)
        return blocks * self.block_tokens

    def stop(self, resumed: int, matched: int, prompt_tokens: int) -> int:
        """The one position of a prompt after which the state is worth keeping; 0 if none is.

        Of two: where others went another way (the blocks end), for whoever shares that beginning;
        and the prompt's last block, for whoever asks again. The one that ends the longer stretch.
        """
        size = self.block_tokens
        shared, last = matched // size * size, (prompt_tokens - 1) // size * size
        chosen = shared if shared - resumed > last - shared else last
        return chosen if chosen > resumed else 0

    def restore(self, lease: Lease, row: int, start_block: int, end_block: int) -> int:
        """Decodes matched blocks into the row's K and V; the tokens that the lease still covers."""
        if not start_block:
            self._rows[row] = self._with_room(lease.tokens)
            self._tokens[row] = lease.tokens
        with self.row_planes(row) as planes:
            return lease.decode(planes, start_block, end_block)

    def resume(self, lease: Lease, row: int, tokens: int, ids: Sequence[int]) -> int:
        """Puts the state in, so that the row goes on after its first `tokens` tokens.

        Returns after how many it does: fewer if that checkpoint is gone or not sound, and an
        earlier one or none took its place. `ids`: the tokens, at least as many.
        """
        size, chain = self.block_tokens, lease.chain
        blocks = tokens // size
        while blocks := self.checkpoints.longest(chain, blocks):
            end = blocks * size
            state = self.checkpoints.get(chain, blocks, _packed(ids[:end]))
            if state is not None:
                self.go_on(row, end, state)
                return end
        return 0

    def go_on(self, row: int, tokens: int, state: bytes) -> None:
        """Has a row whose K and V are there stand after `tokens` tokens, in that state."""
        arrays = iter(self.shape.unpack(state))
        for cache in _recurrent(self._rows[row]):
            cache.cache = [next(arrays) for _ in cache.cache]
        for cache in _attending(self._rows[row]):
            cache.offset = tokens
        self._tokens[row] = tokens

    def snapshot(self, row: int, tokens: int) -> Snapshot:
        """The row's state, evaluated; `tokens` is where it stands."""
        arrays = state_of(_recurrent(self._rows[row]))
        mx.eval(arrays)
        return Snapshot(tokens, arrays)

    def keep(self, lease: Lease, snapshot: Snapshot, ids: Sequence[int]) -> bool:
        """Keeps a state that lies at the end of a block of the lease's chain; whether it is kept.

        Raises: OSError if too much waits for the disk; ValueError if the state is not of the shape
        that it had.
        """
        blocks, chain = snapshot.tokens // self.block_tokens, lease.chain
        if not 0 < snapshot.tokens <= chain.tokens:
            return False
        pieces = self.shape.pack(snapshot.arrays)
        return self.checkpoints.put(chain, blocks, _packed(ids[: snapshot.tokens]), *pieces)

    @contextmanager
    def row_planes(self, row: int) -> Iterator[RowPlanes]:
        """The K and V of one row for the pool to read or write, until the block ends.

        MLX updates an array in place only while nobody else holds its memory.
        """
        self.settle()
        caches = list(_attending(self._rows[row]))
        for cache in caches:
            cache.keys, cache.values = _dense(cache.keys), _dense(cache.values)
        keys = [_buffer(cache.keys) for cache in caches]
        values = [_buffer(cache.values) for cache in caches]
        try:
            with RowPlanes(keys, values, 0) as planes:
                yield planes
        finally:
            for view in (*keys, *values):
                view.release()

    def _with_room(self, tokens: int) -> Caches:
        """Fresh caches whose K and V have room for so many tokens and a few more."""
        caches: Caches = make_prompt_cache(self._model)
        capacity = -(-(tokens + 1) // _ROOM_TOKENS) * _ROOM_TOKENS
        for cache, layer in zip(_attending(caches), self._geometry.layers, strict=True):
            cache.keys = mx.zeros((1, layer.kv_heads, capacity, layer.k_dim), self._dtype)
            cache.values = mx.zeros((1, layer.kv_heads, capacity, layer.v_dim), self._dtype)
            mx.eval(cache.keys, cache.values)
        return caches


def _packed(ids: Sequence[int]) -> bytes:
    """Token ids as states are digested with."""
    return np.array(ids, "<u4").tobytes()


def _recurrent(caches: Caches) -> Iterator[ArraysCache]:
    return (cache for cache in flat(caches) if type(cache) is ArraysCache)


def _attending(caches: Caches) -> Iterator[KVCache]:
    return (cache for cache in flat(caches) if type(cache) is KVCache)


def _buffer(array: mx.array) -> memoryview:
    """Writable, without a copy. bfloat16 has no buffer format."""
    exporter: Any = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
    return memoryview(exporter)


def _dense(array: mx.array) -> mx.array:
    """The array itself, unless its memory has gaps."""
    with _buffer(array) as view:
        if view.c_contiguous:
            return array
    packed = mx.contiguous(array)
    mx.eval(packed)
    return packed
