"""The K and V of one slab row, as addresses that C may read and write.

    buffer [rows, H, capacity, D]        one a layer and side, C-contiguous
      row 0 |-- head 0 --|-- head 1 --| ...
      row 1 |-- head 0 --|-- head 1 --| ...      <- a plane begins here for row 1;
                                                    one head_stride from head to head

A ring of n positions holds position p at p modulo n, so that a windowed layer takes no more than
its window needs. A lap is the positions [k * n, (k + 1) * n) of a ring: during it, position p lies
p - k * n places behind the plane's beginning, which C is told as a plane that begins k * n places
earlier. Rings are whole blocks long, so that every block lies in one lap.

An MLX array whose memory is exported is copied as a whole at its next update, so the exports live
no longer than the `with` block. Does not know MLX: anything with the buffer protocol will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dovecote_cache import _native
from dovecote_cache.errors import PlanesClosed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Buffer

    from dovecote_cache._native import Export, PlaneArray
    from dovecote_cache.geometry import Geometry

    # numpy's stubs give its arrays the buffer protocol from Python 3.12 on only.
    SlabBuffer = Buffer | npt.NDArray[np.generic]

__all__ = ["RowPlanes"]

_DIMENSIONS = 4


class RowPlanes:
    """Row `row` of the L key and L value buffers. Usable inside `with` only, on one thread.

    `rings`: for each layer the positions of its ring, 0 if it is none; without it there are none.
    Raises: ValueError if keys, values and rings differ in number.
    """

    __slots__ = (
        "_array",
        "_buffers",
        "_exports",
        "_geometry",
        "_planes",
        "_rings",
        "_row",
        "_shapes",
        "_views",
    )

    def __init__(
        self,
        keys: Sequence[SlabBuffer],
        values: Sequence[SlabBuffer],
        row: int,
        rings: Sequence[int] = (),
    ) -> None:
        self._rings = tuple(rings) or (0,) * len(keys)
        layers = zip(keys, values, self._rings, strict=True)
        self._buffers = [buffer for key, value, _ in layers for buffer in (key, value)]
        self._row = row
        self._views: list[memoryview] = []
        self._exports: list[Export] = []
        self._planes: list[tuple[int, int, int]] = []
        self._shapes: list[tuple[int, int]] = []
        self._array: PlaneArray | None = None
        self._geometry: Geometry | None = None

    def __enter__(self) -> Self:
        """Export the buffers. Raises: ValueError if one is not `[rows, H, capacity, D]`."""
        try:
            for buffer in self._buffers:
                self._hold(_native.view(buffer))
            self._array = _native.plane_array(self._planes)
        except BaseException:
            self._drop()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._drop()

    def laps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The pieces of positions [start, end) in which no ring begins anew; one if it is empty."""
        rings = [ring for ring in self._rings if ring]
        while True:
            stop = min([end, *((start // ring + 1) * ring for ring in rings)])
            yield start, stop
            if stop >= end:
                return
            start = stop

    def readable(
        self, geometry: Geometry, start: int = 0, layers: tuple[int, int] | None = None
    ) -> PlaneArray:
        """K then V of every layer, or of the layers [first, last) alone, for C to read.

        Good for the positions of the lap that `start` is in, and until the `with` block ends.
        Raises: PlanesClosed; ValueError if the buffers do not have that geometry.
        """
        if self._array is None:
            raise PlanesClosed
        if self._geometry is not geometry:
            self._check(geometry)
            self._geometry = geometry
        first, last = layers or (0, len(self._rings))
        if (first, last) == (0, len(self._rings)) and not any(self._rings):
            return self._array
        return _native.plane_array(
            [plane for layer in range(first, last) for plane in self._in_lap(layer, start)]
        )

    def writable(
        self, geometry: Geometry, start: int = 0, layers: tuple[int, int] | None = None
    ) -> PlaneArray:
        """As `readable`, for C to write. Raises: ValueError if a buffer is read-only, too."""
        if any(view.readonly for view in self._views):
            raise ValueError("a buffer of the slab is read-only")
        return self.readable(geometry, start, layers)

    def _in_lap(self, layer: int, position: int) -> Iterator[tuple[int, int, int]]:
        """The layer's two planes as if their first place were position 0."""
        ring = self._rings[layer]
        behind = position // ring * ring if ring else 0
        sides = slice(2 * layer, 2 * layer + 2)
        for (address, stride, capacity), (_, dim), view in zip(
            self._planes[sides], self._shapes[sides], self._views[sides], strict=True
        ):
            yield address - behind * dim * view.itemsize, stride, capacity + behind

    def _hold(self, view: memoryview) -> None:
        self._views.append(view)
        shape = view.shape or ()
        if len(shape) != _DIMENSIONS or not view.c_contiguous:
            raise ValueError(f"a contiguous [rows, heads, capacity, dim] is wanted, not {shape}")
        rows, heads, capacity, dim = shape
        if not 0 <= self._row < rows:
            raise ValueError(f"row {self._row} of {rows}")
        export = _native.export(view)
        self._exports.append(export)
        head_stride = capacity * dim * view.itemsize
        address = _native.export_address(export) + self._row * heads * head_stride
        self._planes.append((address, head_stride, capacity))
        self._shapes.append((heads, dim))

    def _check(self, geometry: Geometry) -> None:
        wanted = [
            (shape.kv_heads, dim) for shape in geometry.layers for dim in (shape.k_dim, shape.v_dim)
        ]
        if self._shapes != wanted:
            raise ValueError(
                f"heads and dims of the planes are {self._shapes}, the pool's {wanted}"
            )
        if any(view.itemsize != geometry.element_bytes for view in self._views):
            raise ValueError(f"the planes do not hold {geometry.dtype}")
        if any(ring % geometry.block_tokens for ring in self._rings):
            raise ValueError(f"a ring of {self._rings} is not whole blocks long")

    def _drop(self) -> None:
        self._array = None
        self._geometry = None
        for export in self._exports:
            _native.drop_export(export)
        for view in self._views:
            view.release()
        self._exports.clear()
        self._views.clear()
        self._planes.clear()
        self._shapes.clear()
