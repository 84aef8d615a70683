"""Where things lie in a pool file, read independently of the core (native/src/layout.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SEALED = 1


def flip_a_byte_of_the_block_at(path: Path, depth: int) -> None:
    """Damage the payload of the one sealed block with `depth` blocks before it in its chain."""
    with path.open("r+b") as file:
        data = file.read()
        (offset,) = frames_at_depth(data, depth)
        middle = offset + frame_bytes(data) // 2
        file.seek(middle)
        file.write(bytes([data[middle] ^ 0x10]))


def frames_at_depth(data: bytes, depth: int) -> list[int]:
    """Offsets of the sealed frames with that many blocks before them."""
    header, _, _, block_tokens, layers, frames = struct.unpack_from("<6I", data, 16)
    record = -(-(64 + 4 * block_tokens + 4 * layers) // 64) * 64
    first_frame = len(data) - frames * frame_bytes(data)
    states = (struct.unpack_from("<3I", data, header + n * record + 4) for n in range(frames))
    return [
        first_frame + number * frame_bytes(data)
        for number, (state, _, at) in enumerate(states)
        if state == SEALED and at == depth
    ]


def frame_bytes(data: bytes) -> int:
    return int(struct.unpack_from("<Q", data, 40)[0])
