"""The codecs and the checksum alone, through `dovecote_native`, against memcpy in the same run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common import GIB, SMOL, Row, memcpy_times, row_of, thread_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = 1888
CODECS = {"exact": 0, "f16": 1, "q8": 2, "k8v4": 3, "q4": 4}
FLOAT32 = 0


class Codec:
    """SmolLM2's K and V of 1,888 tokens, a plane at a time; memcpy copies their float32."""

    params = tuple(CODECS)
    param_names = ("codec",)
    unit = "times memcpy"

    def setup(self, codec: str) -> None:
        from dovecote_native import ffi, lib

        self.ffi, self.lib, self.codec = ffi, lib, CODECS[codec]
        self.row = row_of(SMOL, TOKENS)
        self.planes = [self.plane(array) for array in both_sides(self.row)]
        size = lib.dovecote_codec_plane_bytes(self.codec, FLOAT32, 0, *self.heads_dim_tokens)
        self.bytes = [ffi.new("uint8_t[]", size) for _ in self.planes]
        self.encode()

    @property
    def heads_dim_tokens(self) -> tuple[int, int, int]:
        return SMOL.kv_heads, SMOL.head_dim, TOKENS

    def plane(self, array: Any) -> Any:
        """The plane of one side of one layer; borrows the array."""
        address = self.ffi.cast("void *", array.ctypes.data)
        return self.ffi.new("dovecote_plane *", (address, array.strides[1], TOKENS))

    def encode(self) -> None:
        heads, dim, tokens = self.heads_dim_tokens
        for side, (plane, to) in enumerate(zip(self.planes, self.bytes, strict=True)):
            self.lib.dovecote_codec_encode(
                self.codec, FLOAT32, side % 2, heads, dim, plane, 0, tokens, to
            )

    def decode(self) -> None:
        heads, dim, tokens = self.heads_dim_tokens
        for side, (plane, source) in enumerate(zip(self.planes, self.bytes, strict=True)):
            self.lib.dovecote_codec_decode(
                self.codec, FLOAT32, side % 2, heads, dim, source, 0, tokens, plane
            )

    def track_encode(self, _codec: str) -> float:
        return memcpy_times(self.encode, SMOL.dense_bytes(TOKENS))

    def track_decode(self, _codec: str) -> float:
        return memcpy_times(self.decode, SMOL.dense_bytes(TOKENS))

    def track_encode_bandwidth(self, _codec: str) -> float:
        """A GiB of float32 on one processor: 250 ms are 4 GiB/s."""
        return milliseconds_a_gib(self.encode)

    track_encode_bandwidth.unit = "ms a GiB"  # type: ignore[attr-defined]

    def track_decode_bandwidth(self, _codec: str) -> float:
        """The same back into float32."""
        return milliseconds_a_gib(self.decode)

    track_decode_bandwidth.unit = "ms a GiB"  # type: ignore[attr-defined]


def milliseconds_a_gib(work: Callable[[], object], rounds: int = 9) -> float:
    """Processor time at best, of work on SmolLM2's K and V of 1,888 tokens in float32."""
    best = min(thread_seconds(work) for _ in range(rounds))
    return 1e3 * best * GIB / SMOL.dense_bytes(TOKENS)


class Checksum:
    """CRC-32C of a section's bytes while the nearest caches have them."""

    unit = "times memcpy"
    SECTION = 12672  # one layer of SmolLM2 in q8
    TIMES = 2000

    def setup(self) -> None:
        from dovecote_native import ffi, lib

        self.lib = lib
        self.bytes = ffi.new("uint8_t[]", self.SECTION)

    def work(self) -> None:
        for _ in range(self.TIMES):
            self.lib.dovecote_crc32c(0, self.bytes, self.SECTION)

    def track_memcpy_times(self) -> float:
        """Against a copy from memory to memory, which is what it adds to."""
        return memcpy_times(self.work, self.SECTION * self.TIMES)


def both_sides(row: Row) -> list[Any]:
    """K, V of layer 0, K, V of layer 1, ..."""
    return [array for pair in zip(row.keys, row.values, strict=True) for array in pair]
