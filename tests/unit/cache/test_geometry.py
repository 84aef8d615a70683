from __future__ import annotations

import pytest
from slabs import GEOMETRY, open_pool

from dovecote_cache import CodecName, Geometry, LayerShape

SMOLLM2 = Geometry((LayerShape(3, 64, 64),) * 30, "float16")


def test_dense_bytes_count_both_sides_of_every_layer() -> None:
    """SmolLM2-135M takes 23,040 bytes a token in 16 bits."""
    assert SMOLLM2.dense_bytes_per_token == 23_040


@pytest.mark.parametrize(
    ("codec", "bytes_per_token"),
    (("exact", 23_040), ("f16", 23_040), ("q8", 12_240), ("k8v4", 9_360), ("q4", 6_480)),
)
def test_payload_bytes_follow_the_codec(codec: CodecName, bytes_per_token: int) -> None:
    """A block's payload is its tokens times the codec's bytes a token, up to alignment."""
    payload_bytes = SMOLLM2.payload_bytes(codec)
    assert 0 <= payload_bytes - bytes_per_token * SMOLLM2.block_tokens < 4 * 60


@pytest.mark.parametrize(("tokens", "blocks"), ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)))
def test_blocks_count_the_short_one(tokens: int, blocks: int) -> None:
    """Tokens touch whole blocks and one more for the rest."""
    assert GEOMETRY.blocks(tokens) == blocks


def test_a_frame_holds_the_payload() -> None:
    """A frame is at least as large as the K and V in it."""
    with open_pool(None) as pool:
        assert pool.frame_bytes >= GEOMETRY.payload_bytes("exact")


@pytest.mark.parametrize("shape", ((0, 8, 8), (1, 0, 8), (1, 8, 0)))
def test_a_layer_has_heads_and_dims(shape: tuple[int, int, int]) -> None:
    """A layer without heads or dims is refused."""
    with pytest.raises(ValueError, match="must be positive"):
        LayerShape(*shape)


@pytest.mark.parametrize(
    ("layers", "block_tokens", "dtype"),
    ((0, 4, "float32"), (1025, 4, "float32"), (1, 0, "float32"), (1, 257, "float32"), (1, 4, "f8")),
)
def test_a_geometry_keeps_its_bounds(layers: int, block_tokens: int, dtype: str) -> None:
    """Layer count, block length and element type are checked where the geometry is made."""
    with pytest.raises(ValueError, match=r"layers|block|element"):
        Geometry((LayerShape(1, 8, 8),) * layers, dtype, block_tokens)  # type: ignore[arg-type]
