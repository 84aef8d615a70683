from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from dovecote_engine.rows.row_state import StateShape

ARRAYS: list[Any] = [
    mx.arange(12, dtype=mx.float32).reshape(1, 3, 4),
    None,
    mx.arange(6).reshape(2, 3).T.astype(mx.bfloat16),
    mx.array([[1, -1]], mx.float16),
]


def test_a_state_comes_back_to_the_bit() -> None:
    """Whatever its types and strides, and with its empty places."""
    shape = StateShape.of(ARRAYS)
    content = b"".join(shape.pack(ARRAYS))
    assert len(content) == shape.size_bytes == 48 + 12 + 4
    found = shape.unpack(content)
    assert StateShape.of(found) == shape
    assert found[1] is None
    for one, other in zip(found, ARRAYS, strict=True):
        assert one is other or mx.array_equal(one, other).item()


def test_a_state_of_another_shape_is_refused() -> None:
    """Of arrays and of bytes alike."""
    shape = StateShape.of(ARRAYS)
    with pytest.raises(ValueError, match="shape"):
        shape.pack(ARRAYS[:2])
    with pytest.raises(ValueError, match="64 bytes, not 63"):
        shape.unpack(b"".join(shape.pack(ARRAYS))[1:])
