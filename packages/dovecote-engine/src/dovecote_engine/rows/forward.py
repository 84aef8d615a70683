"""The model over the rows: a chunk of one row's prompt, a token for each row that decodes, or both.

    BatchForward   a slab: the rows of a step are one batch
    RowForward     its neighbour: each row has caches of mlx-lm's own, and a forward of its own

Does not know sequences, sampling or the pool. Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import mlx.core as mx

from dovecote_engine.cpu.attention import attending_caches, can_join
from dovecote_engine.rows.head import LastLogits
from dovecote_engine.rows.layer_cache import ChunkCursor, DecodeCursor, JointCursor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx import nn

    from dovecote_engine.rows.layer_cache import Cursor, LayerCache
    from dovecote_engine.rows.row_caches import RowCaches
    from dovecote_engine.rows.slab import Slab

__all__ = ["BatchForward", "Chunk", "Forward", "Joined", "RowForward"]


class Forward(Protocol):
    """What a runner asks of a model."""

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""

    def chunk(self, tokens: Sequence[int], row: int, start: int) -> bool:
        """Computes a row's state at positions from `start` on; whether it came out finite."""

    def last_chunk(self, tokens: Sequence[int], row: int, start: int) -> mx.array:
        """As `chunk`; the logits [1, V] of its last position, unevaluated."""

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> mx.array:
        """The logits [R, V] after one token more for each of the rows [0, R), unevaluated."""

    @property
    def can_join(self) -> bool:
        """Whether `join` is there."""

    def join(self, chunk: Chunk, tokens: Sequence[int], lengths: Sequence[int]) -> Joined:
        """A chunk and a decode step in one forward, which reads the weights once."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of a row at positions from `start` on."""

    tokens: Sequence[int]
    row: int
    start: int


@dataclass(frozen=True, slots=True)
class Joined:
    """Logits of the chunk's last position [1, V] and of the rows [R, V], evaluated."""

    last: mx.array
    decoded: mx.array
    is_sound: bool
    """Whether the chunk came out finite."""


class BatchForward:
    """The model over a slab."""

    def __init__(self, model: nn.Module, slab: Slab) -> None:
        """Runs the model once, to find its vocabulary."""
        self._model = model
        self._slab = slab
        self._caches = attending_caches(model, slab)
        self._last_logits = LastLogits(model)
        self.can_join = can_join(model, slab, self._caches)

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return self._last_logits.vocabulary

    def chunk(self, tokens: Sequence[int], row: int, start: int) -> bool:
        """Computes K and V only: logits that nobody evaluates cost nothing."""
        end = start + len(tokens)
        self._model(mx.array([tokens]), cache=self._caches_at(ChunkCursor(row, start, end)))
        sound = self._slab.is_sound(row, start, end)
        mx.eval(sound, self._slab.keys, self._slab.values)
        return bool(sound.item())

    def last_chunk(self, tokens: Sequence[int], row: int, start: int) -> mx.array:
        """The head runs over the last position alone, where the model allows it."""
        cursor = ChunkCursor(row, start, start + len(tokens))
        return self._last_logits(mx.array([tokens]), self._caches_at(cursor))

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> mx.array:
        """All rows at once."""
        caches = self._caches_at(DecodeCursor([*lengths]))
        logits: mx.array = self._model(mx.array([[token] for token in tokens]), cache=caches)
        return logits[:, -1]

    def join(self, chunk: Chunk, tokens: Sequence[int], lengths: Sequence[int]) -> Joined:
        """Every token is a sequence of its own to the model; attention alone knows better."""
        rows, end = len(tokens), chunk.start + len(chunk.tokens)
        caches = self._caches_at(JointCursor([*lengths], chunk.row, chunk.start, end))
        every = mx.array([[token] for token in (*tokens, *chunk.tokens)])
        wanted = [*range(rows), rows + len(chunk.tokens) - 1]
        logits = self._last_logits.of_rows(every, caches, wanted)
        sound = self._slab.is_sound(chunk.row, chunk.start, end)
        mx.eval(logits, sound, self._slab.keys, self._slab.values)
        return Joined(logits[rows:], logits[:rows], bool(sound.item()))

    def _caches_at(self, cursor: Cursor) -> Sequence[LayerCache]:
        for cache in self._caches:
            cache.cursor = cursor
        return self._caches


class RowForward:
    """The model over rows that each have caches of their own."""

    def __init__(self, model: nn.Module, rows: RowCaches) -> None:
        """Runs the model once, to find its vocabulary."""
        self._model = model
        self._rows = rows
        self._last_logits = LastLogits(model)
        self.can_join = False

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return self._last_logits.vocabulary

    def chunk(self, tokens: Sequence[int], row: int, start: int) -> bool:
        """The logits of the last position tell whether it came out finite."""
        sound = mx.all(mx.isfinite(self.last_chunk(tokens, row, start)))
        mx.eval(sound)
        self._rows.settle()
        return bool(sound.item())

    def last_chunk(self, tokens: Sequence[int], row: int, start: int) -> mx.array:
        """The head runs over the last position alone, where the model allows it."""
        caches = self._rows.at(row, start, start + len(tokens))
        return self._last_logits(mx.array([tokens]), caches)

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> mx.array:
        """One row after the other."""
        logits = [
            self._model(mx.array([[token]]), cache=self._rows.at(row, length, length + 1))[:, -1]
            for row, (token, length) in enumerate(zip(tokens, lengths, strict=True))
        ]
        return mx.concatenate(logits)

    def join(self, chunk: Chunk, tokens: Sequence[int], lengths: Sequence[int]) -> Joined:
        """Rows do not share a forward."""
        raise NotImplementedError
