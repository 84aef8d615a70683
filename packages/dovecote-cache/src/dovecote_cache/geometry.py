"""The shape of one model's K and V, and the bytes that follow from it.

Letters used in this package: L layers, H kv heads, T tokens, D head dim, B blocks. Does not know
where the bytes lie, neither in the slab nor in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final, Literal

from dovecote_cache import _native

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CodecName", "DTypeName", "Geometry", "LayerShape"]

CodecName = Literal["exact", "f16", "q8", "k8v4", "q4"]
DTypeName = Literal["float32", "float16", "bfloat16"]

_ELEMENT_BYTES: Final[Mapping[DTypeName, int]] = {"float32": 4, "float16": 2, "bfloat16": 2}
_MAX_LAYERS: Final = 1024
_MAX_BLOCK_TOKENS: Final = 256
_PAGE: Final = 4096
_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One layer's K `[kv_heads, T, k_dim]` and V `[kv_heads, T, v_dim]`.

    `window`: how many positions a token attends to, its own included; 0 for all. A frame holds a
    windowed layer as any other; only of the dense K and V less has to be there.
    Raises: ValueError if a number is less than 1, or the window than 0.
    """

    kv_heads: int
    k_dim: int
    v_dim: int
    window: int = 0

    def __post_init__(self) -> None:
        if min(self.kv_heads, self.k_dim, self.v_dim) < 1:
            raise ValueError(f"heads and dims must be positive: {self}")
        if self.window < 0:
            raise ValueError(f"a window cannot be negative: {self}")

    @property
    def elements_per_token(self) -> int:
        """Numbers, K and V together, that one token adds to this layer."""
        return self.kv_heads * (self.k_dim + self.v_dim)


@dataclass(frozen=True, slots=True)
class Geometry:
    """All layers' shapes, the element type the model computes with, and the block's length.

    Raises: ValueError if there are not 1 to 1,024 layers, if a block is not 1 to 256 tokens, or
    if the element type is unknown.
    """

    layers: tuple[LayerShape, ...]
    dtype: DTypeName
    block_tokens: int = 32

    def __post_init__(self) -> None:
        if not 1 <= len(self.layers) <= _MAX_LAYERS:
            raise ValueError(f"1 to {_MAX_LAYERS} layers, not {len(self.layers)}")
        if not 1 <= self.block_tokens <= _MAX_BLOCK_TOKENS:
            raise ValueError(f"1 to {_MAX_BLOCK_TOKENS} tokens in a block, not {self.block_tokens}")
        if self.dtype not in _ELEMENT_BYTES:
            raise ValueError(f"unknown element type {self.dtype!r}")

    @property
    def element_bytes(self) -> int:
        """Bytes of one number of the dense K and V."""
        return _ELEMENT_BYTES[self.dtype]

    @property
    def dense_bytes_per_token(self) -> int:
        """Bytes of one token's dense K and V, all layers together."""
        return self.element_bytes * sum(layer.elements_per_token for layer in self.layers)

    @property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """Layers [start, end) that have one window, and that window; in order, all layers."""
        starts = [0]
        for _, run in groupby(layer.window for layer in self.layers):
            starts.append(starts[-1] + len(list(run)))
        return tuple((start, end, self.layers[start].window) for start, end in pairwise(starts))

    def blocks(self, tokens: int) -> int:
        """Blocks that `tokens` tokens touch, the short one at the end included."""
        return -(-tokens // self.block_tokens)

    def payload_bytes(self, codec: CodecName) -> int:
        """Bytes of one block's K and V as `codec` stores them.

        A frame (`Pool.frame_bytes`) is a little larger: it holds the token ids and checksums too.
        Raises: ValueError if the codec cannot store one of the layers.
        """
        return sum(self._section_bytes(codec, layer) for layer in self.layers)

    def file_bytes(self, codec: CodecName, tokens: int) -> int:
        """Bytes of a pool file with frames for `tokens` tokens (native/src/layout.h).

        Raises: ValueError as `payload_bytes`.
        """
        frames = self.blocks(tokens)
        header = _padded(256 + 12 * len(self.layers), _PAGE)
        record = _padded(64 + 4 * (self.block_tokens + len(self.layers)), _ALIGNMENT)
        sections = (self._section_bytes(codec, layer) for layer in self.layers)
        frame = _padded(sum(_padded(section, _ALIGNMENT) for section in sections), _PAGE)
        return _padded(header + frames * record, _PAGE) + frames * frame

    def _section_bytes(self, codec: CodecName, layer: LayerShape) -> int:
        sides = [
            _native.plane_bytes(codec, self.dtype, side, (layer.kv_heads, self.block_tokens, dim))
            for side, dim in enumerate((layer.k_dim, layer.v_dim))
        ]
        if 0 in sides:
            raise ValueError(f"the codec {codec!r} cannot store {layer}")
        return sum(sides)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
