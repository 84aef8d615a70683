"""The same prefix in several rows of one slab, each as another codec gives it back.

    row 0          computed and never stored: what the others are compared with
    row 1, 2, ...  decoded from a pool in memory, one codec each, in the order of `codecs`

All through the engine's own parts: its slab, its caches, the pool and its leases. MLX is imported
here: the BLAS library is to be in place before.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import create_attention_mask

from dovecote_cache import CodecName, Pool
from dovecote_engine.rows.layer_cache import NO_RING, ChunkCursor, DecodeCursor, Ring, layer_caches
from dovecote_engine.rows.slab import Slab

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.models.loader import LoadedModel
    from dovecote_engine.rows.layer_cache import Cursor, Mask

CODECS: tuple[CodecName, ...] = get_args(CodecName)
Numbers = npt.NDArray[np.float32]

_CHUNK_TOKENS = 512
_FINGERPRINT = bytes(32)


@dataclass(frozen=True)
class Deviation:
    """How far numbers came back from what was stored: sums of squares, and the largest error."""

    squared_error: float = 0.0
    squared: float = 0.0
    largest: float = 0.0

    @property
    def relative_rms(self) -> float:
        """The error's root mean square over that of the numbers."""
        return float(np.sqrt(self.squared_error / self.squared)) if self.squared else 0.0

    def __add__(self, other: Deviation) -> Deviation:
        return Deviation(
            self.squared_error + other.squared_error,
            self.squared + other.squared,
            max(self.largest, other.largest),
        )


def _deviation(stored: Numbers, found: Numbers) -> Deviation:
    errors = (found - stored).astype(np.float64)
    return Deviation(
        float(np.square(errors).sum()),
        float(np.square(stored.astype(np.float64)).sum()),
        float(np.abs(errors).max()),
    )


def numbers(array: mx.array) -> Numbers:
    """A copy of an MLX array for numpy."""
    exporter: Any = array.astype(mx.float32)
    return np.array(exporter, np.float32)


class AllRowsCursor:
    """The same positions of all rows in one forward, for the engine's caches."""

    def __init__(self, rows: int, start: int, count: int) -> None:
        self.offset = start
        self._rows = rows
        self._end = start + count

    @property
    def places(self) -> tuple[int, Sequence[int]]:
        """All rows from the first."""
        return 0, [self.offset] * self._rows

    def implies(self, mask: Mask) -> bool:
        """As far as mlx-lm's own mask is asked for by its name."""
        return isinstance(mask, str)

    def store(self, plane: mx.array, fresh: mx.array, ring: Ring = NO_RING) -> mx.array:
        """Writes [R, H, count, D]; the rows up to their end."""
        assert not ring.positions
        if fresh.shape == plane.shape:
            fresh = mx.contiguous(fresh)
        plane[: self._rows, :, self.offset : self._end] = fresh
        return plane[: self._rows, :, : self._end]

    def mask(self, *, return_array: bool, window_size: int | None, ring: Ring = NO_RING) -> Mask:
        """Causal, after what is there already."""
        assert not ring.positions
        count = self._end - self.offset
        mask: Mask = create_attention_mask(count, self.offset, return_array, window_size)
        return mask


class StoredRows:
    """A prefix in row 0 and its restored twins. One thread."""

    def __init__(
        self, loaded: LoadedModel, capacity: int, codecs: Sequence[CodecName] = CODECS
    ) -> None:
        self.codecs = tuple(codecs)
        self.rows = 1 + len(self.codecs)
        self.bytes_a_token: dict[CodecName, float] = {}
        self._model = loaded.model
        self._geometry = loaded.geometry
        self._slab = Slab(loaded.geometry, self.rows * (capacity + 512) * _bytes(loaded))
        self._slab.reserve(self.rows, capacity)
        self._caches = layer_caches(self._slab)
        self._tokens: list[int] = []

    def row_of(self, codec: CodecName) -> int:
        """The row that the codec restores into."""
        return 1 + self.codecs.index(codec)

    def compute(self, tokens: Sequence[int]) -> None:
        """Prefill row 0 with the tokens. What it shares with the ones before is not computed."""
        start = common_prefix(self._tokens, tokens)
        self._tokens = list(tokens)
        for begin in range(start, len(tokens), _CHUNK_TOKENS):
            end = min(begin + _CHUNK_TOKENS, len(tokens))
            self._forward(ChunkCursor(0, begin, end), [tokens[begin:end]])
            self._slab.settle()

    def restore(self) -> None:
        """Seal row 0's prefix in a pool of each codec, and decode it into the codec's row."""
        for codec in self.codecs:
            with self._open_pool(codec, len(self._tokens)) as pool:
                self._through(pool, self._tokens, 0, self.row_of(codec))

    def compute_in_turns(self, tokens: Sequence[int], turn_tokens: int) -> None:
        """Compute the tokens in turns, in every row for itself: each turn attends to what the pool
        gave back of those before it. Row 0 is never stored.
        """
        self._tokens = list(tokens)
        with ExitStack() as pools:
            opened = [self._open_pool(codec, len(tokens)) for codec in self.codecs]
            for pool in opened:
                pools.enter_context(pool)
            for start in range(0, len(tokens), turn_tokens):
                end = min(start + turn_tokens, len(tokens))
                cursor = AllRowsCursor(self.rows, start, end - start)
                self._forward(cursor, [tokens[start:end]] * self.rows)
                self._slab.settle()
                for row, pool in enumerate(opened, 1):
                    self._through(pool, tokens[:end], row, row)

    def deviation(self, codec: CodecName) -> tuple[Deviation, Deviation]:
        """Of the codec's K and V from row 0's, over the prefix and all layers."""
        row, end = self.row_of(codec), len(self._tokens)
        sides = []
        for planes in (self._slab.keys, self._slab.values):
            pairs = ((numbers(plane[0, :, :end]), numbers(plane[row, :, :end])) for plane in planes)
            sides.append(sum((_deviation(*pair) for pair in pairs), Deviation()))
        return sides[0], sides[1]

    def score(self, start: int, tokens: Sequence[int]) -> Numbers:
        """Logits [R, T, V] after each of the tokens, which stand at `start` in every row."""
        logits = self._forward(AllRowsCursor(self.rows, start, len(tokens)), [tokens] * self.rows)
        self._slab.settle()
        return numbers(logits)

    def decode(self, length: int, tokens: Sequence[int]) -> Numbers:
        """Logits [R, V] of one step of all rows: one token each, at position `length`."""
        logits = self._forward(DecodeCursor([length] * self.rows), [[each] for each in tokens])
        self._slab.settle()
        return numbers(logits[:, -1])

    def _forward(self, cursor: Cursor, tokens: Sequence[Sequence[int]]) -> mx.array:
        for cache in self._caches:
            cache.cursor = cursor
        logits: mx.array = self._model(mx.array([*map(list, tokens)]), cache=self._caches)
        return logits

    def _through(self, pool: Pool, tokens: Sequence[int], source: int, target: int) -> None:
        """Seal what the pool lacks of the source row, and decode all of it into the target row."""
        ids = np.array(tokens, np.uint32)
        with pool.lease(len(ids)) as lease, self._slab.row_planes(source) as planes:
            lease.match(ids)
            kept = lease.seal_short(ids[lease.whole_tokens :], planes)
        with pool.lease(0) as lease, self._slab.row_planes(target) as planes:
            found = lease.match(ids)
            restored = lease.decode(planes, 0, self._geometry.blocks(found))
        assert kept == found == restored == len(ids)
        self.bytes_a_token[pool.codec] = pool.frame_bytes / self._geometry.block_tokens

    def _open_pool(self, codec: CodecName, tokens: int) -> Pool:
        """A pool in memory with room for that many tokens, and a tenth more for its tables."""
        payload = self._geometry.payload_bytes(codec) * self._geometry.blocks(tokens)
        return Pool.open(
            None,
            geometry=self._geometry,
            codec=codec,
            fingerprint=_FINGERPRINT,
            size_bytes=payload + payload // 10 + (1 << 20),
        )


def common_prefix(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((at for at, (one, two) in pairs if one != two), min(len(some), len(others)))


def _bytes(loaded: LoadedModel) -> int:
    return loaded.geometry.dense_bytes_per_token
