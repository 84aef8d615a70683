from __future__ import annotations

import numpy as np
import pytest
from slabs import GEOMETRY, Slab

from dovecote_cache import Geometry, LayerShape, PlanesClosed, RowPlanes


def test_exports_end_with_the_block(slab: Slab) -> None:
    """A buffer can be resized again once the `with` block is over, so no view is left."""
    resizable = bytearray(slab.keys[0].tobytes())
    key = memoryview(resizable).cast("B").cast("f", slab.keys[0].shape)
    with RowPlanes([key], [slab.values[0]], 0):
        pass
    key.release()
    resizable.append(0)


def test_a_failed_entry_leaves_no_export(slab: Slab) -> None:
    """When one buffer is refused, those before it are given back."""
    resizable = bytearray(slab.keys[0].tobytes())
    key = memoryview(resizable).cast("B").cast("f", slab.keys[0].shape)
    with pytest.raises(ValueError, match="contiguous"), RowPlanes([key], [b"flat"], 0):
        pass
    key.release()
    resizable.append(0)


def test_planes_are_closed_outside_the_block(slab: Slab) -> None:
    """Addresses are not handed out before or after the `with` block."""
    planes = slab.planes()
    with pytest.raises(PlanesClosed):
        planes.readable(GEOMETRY)
    with planes:
        planes.readable(GEOMETRY)
    with pytest.raises(PlanesClosed):
        planes.readable(GEOMETRY)


def test_keys_and_values_come_in_pairs(slab: Slab) -> None:
    """A layer with keys and no values is refused."""
    with pytest.raises(ValueError, match="shorter"):
        RowPlanes(slab.keys, slab.values[:1], 0)


@pytest.mark.parametrize("row", (-1, 2))
def test_the_row_is_one_of_the_slab(slab: Slab, row: int) -> None:
    """Rows are counted from 0 to the slab's last."""
    with pytest.raises(ValueError, match=f"row {row} of 2"), slab.planes(row):
        pass


def test_a_strided_buffer_is_refused() -> None:
    """A transposed array has other strides than C expects."""
    transposed = np.zeros((2, 40, 2, 8), np.float32).transpose(0, 2, 1, 3)
    with pytest.raises(ValueError, match="contiguous"), RowPlanes([transposed], [transposed], 0):
        pass


@pytest.mark.parametrize(
    "geometry",
    (
        Geometry(GEOMETRY.layers[:1], "float32", 4),
        Geometry((*GEOMETRY.layers[:1], LayerShape(1, 4, 8)), "float32", 4),
        Geometry(GEOMETRY.layers, "float16", 4),
    ),
    ids=["layers", "dims", "element"],
)
def test_planes_are_checked_against_the_geometry(slab: Slab, geometry: Geometry) -> None:
    """Layers, heads, dims and element size must be the pool's."""
    with slab.planes() as planes, pytest.raises(ValueError, match="planes"):
        planes.readable(geometry)


def test_read_only_buffers_are_not_written(slab: Slab) -> None:
    """A read-only buffer can be sealed from but not decoded into."""
    slab.values[1].flags.writeable = False
    with slab.planes() as planes:
        planes.readable(GEOMETRY)
        with pytest.raises(ValueError, match="read-only"):
            planes.writable(GEOMETRY)
