from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny_engine import GEOMETRY

from dovecote_cache import Geometry, LayerShape
from dovecote_engine.rows.layer_cache import DecodeCursor, layer_caches
from dovecote_engine.rows.slab import CAPACITY_STEP_TOKENS as STEP
from dovecote_engine.rows.slab import Slab

TOKEN_BYTES = GEOMETRY.dense_bytes_per_token


def _fill(slab: Slab, row: int, value: float) -> None:
    for planes in (slab.keys, slab.values):
        for plane in planes:
            plane[row] = mx.full(plane.shape[1:], value, plane.dtype)


def _row(slab: Slab, row: int, position: int) -> set[float]:
    planes = [*slab.keys, *slab.values]
    numbers = [np.array(plane[row, :, position].astype(mx.float32)) for plane in planes]
    return {float(number) for each in numbers for number in each.flat}


def _addresses(slab: Slab) -> list[int]:
    slab.settle()
    planes: list[Any] = [*slab.keys, *slab.values]
    return [np.asarray(memoryview(each)).__array_interface__["data"][0] for each in planes]


def test_a_slab_takes_no_memory_before_the_first_row() -> None:
    """An idle engine holds no slab."""
    slab = Slab(GEOMETRY, 1 << 30)
    assert (slab.rows, slab.capacity, slab.bytes) == (0, 0, 0)


def test_rows_grow_to_powers_of_two_and_capacity_in_steps() -> None:
    """Growth leaves room for the next rows and tokens."""
    slab = Slab(GEOMETRY, 1 << 30)
    slab.reserve(3, STEP + 1)
    assert (slab.rows, slab.capacity) == (4, 2 * STEP)
    assert slab.bytes == 4 * 2 * STEP * TOKEN_BYTES
    assert sum(plane.nbytes for plane in (*slab.keys, *slab.values)) == slab.bytes


def test_growing_keeps_what_the_rows_hold_and_zeroes_the_rest() -> None:
    """A grown slab has the old numbers in the old places and finite ones elsewhere (S1)."""
    slab = Slab(GEOMETRY, 1 << 30)
    slab.reserve(2, STEP)
    _fill(slab, 1, 7.0)
    slab.reserve(4, STEP + 1)
    assert _row(slab, 1, STEP - 1) == {7.0}
    assert _row(slab, 1, STEP) == {0.0}
    assert _row(slab, 3, 0) == {0.0}


def test_growth_stays_within_the_budget() -> None:
    """Room for later is left out where the budget has none (S3)."""
    slab = Slab(GEOMETRY, 3 * 2 * STEP * TOKEN_BYTES)
    assert slab.can_reserve(3, 2 * STEP)
    assert not slab.can_reserve(3, 2 * STEP + 1)
    slab.reserve(3, 2 * STEP)
    assert (slab.rows, slab.capacity) == (3, 2 * STEP)
    slab.reserve(2, 3 * STEP)
    assert (slab.rows, slab.capacity) == (2, 3 * STEP)


def test_the_longest_row_follows_from_the_budget() -> None:
    """A row of the limit fits alone, and one token more does not."""
    slab = Slab(GEOMETRY, 2 * STEP * TOKEN_BYTES + 5)
    assert slab.row_limit_tokens == 2 * STEP
    assert not slab.can_reserve(1, slab.row_limit_tokens + 1)


@pytest.mark.parametrize("dtype", ("float32", "float16", "bfloat16"))
def test_rows_move_swap_and_clear(dtype: str) -> None:
    """Only the positions asked for change, in every element type."""
    shape = LayerShape(2, 4, 6)
    slab = Slab(Geometry((shape,), dtype, 4), 1 << 30)  # type: ignore[arg-type]
    slab.reserve(3, 8)
    for row in range(3):
        _fill(slab, row, row + 1.0)
    slab.move_row(2, 0, 5)
    assert (_row(slab, 0, 4), _row(slab, 0, 5)) == ({3.0}, {1.0})
    slab.swap_rows(0, 1, 2)
    assert (_row(slab, 0, 1), _row(slab, 1, 1)) == ({2.0}, {3.0})
    assert (_row(slab, 0, 2), _row(slab, 1, 2)) == ({3.0}, {2.0})
    slab.clear_row(1, 3)
    assert (_row(slab, 1, 2), _row(slab, 1, 3)) == ({2.0}, {0.0})


def test_a_decode_step_updates_the_slab_in_place() -> None:
    """No step copies the slab, also not after its memory was lent out (S2)."""
    slab = Slab(GEOMETRY, 1 << 30)
    slab.reserve(2, STEP)
    before = _addresses(slab)
    caches = layer_caches(slab)
    fresh = mx.ones((2, 2, 1, 32))
    for length in range(3):
        with slab.row_planes(1):
            pass
        for layer in caches:
            layer.cursor = DecodeCursor([length, length + 4])
            mx.eval(layer.update_and_fetch(fresh, fresh))
    assert _addresses(slab) == before
    assert _row(slab, 1, 6) == {1.0}


def test_a_reset_gives_the_memory_back() -> None:
    """After a reset the slab is as if new."""
    slab = Slab(GEOMETRY, 1 << 30)
    slab.reserve(2, STEP)
    slab.reset()
    assert slab.bytes == 0
    slab.reserve(1, 1)
    assert _row(slab, 0, 0) == {0.0}
