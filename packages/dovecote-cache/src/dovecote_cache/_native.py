"""The C core as typed functions: pointers in, exceptions out.

The only module that sees cffi, and so the only one where `Any` is allowed. It owns no state: each
handle belongs to the object that asked for it. A handle's finalizer is a safety net for a forgotten
`close`; it keeps what the handle points into alive (a lease its pool), in whatever order the
collector takes them.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NewType

import numpy as np

from dovecote_cache.errors import (
    PoolBroken,
    PoolBusy,
    PoolExhausted,
    PoolInUse,
    PoolIOError,
    PoolMismatch,
    PoolUnreadable,
)
from dovecote_native import ffi as _untyped_ffi
from dovecote_native import lib as _untyped_lib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy.typing as npt

    from dovecote_cache.chain import Chain
    from dovecote_cache.geometry import CodecName, DTypeName
    from dovecote_cache.opening import PoolSpec
    from dovecote_cache.planes import SlabBuffer

_ffi: Final[Any] = _untyped_ffi
_lib: Final[Any] = _untyped_lib

PoolHandle = NewType("PoolHandle", object)
LeaseHandle = NewType("LeaseHandle", object)
Export = NewType("Export", object)
PlaneArray = NewType("PlaneArray", object)

_CODECS: Final[Mapping[CodecName, int]] = {
    "exact": _lib.DOVECOTE_CODEC_EXACT,
    "f16": _lib.DOVECOTE_CODEC_F16,
    "q8": _lib.DOVECOTE_CODEC_Q8,
    "k8v4": _lib.DOVECOTE_CODEC_K8V4,
    "q4": _lib.DOVECOTE_CODEC_Q4,
}
_DTYPES: Final[Mapping[DTypeName, int]] = {
    "float32": _lib.DOVECOTE_FLOAT32,
    "float16": _lib.DOVECOTE_FLOAT16,
    "bfloat16": _lib.DOVECOTE_BFLOAT16,
}
_KEY_BYTES: Final = 16
_FRAMES_MAX: Final = 2**32 - 1


# ---- pool


def open_pool(spec: PoolSpec, path: Path | None, size_bytes: int) -> PoolHandle:
    """Open or make the pool at `path`; see `dovecote_pool_open`.

    Raises: ValueError, MemoryError, PoolIOError, PoolUnreadable, PoolMismatch, PoolBusy.
    """
    shapes = [(shape.kv_heads, shape.k_dim, shape.v_dim) for shape in spec.geometry.layers]
    layers = _ffi.new("dovecote_layer[]", shapes)
    config = _ffi.new(
        "dovecote_pool_config *",
        {
            "layers": layers,
            "layer_count": len(shapes),
            "block_tokens": spec.geometry.block_tokens,
            "dtype": _DTYPES[spec.geometry.dtype],
            "codec": _CODECS[spec.codec],
            "fingerprint": list(spec.fingerprint),
            "size_bytes": size_bytes,
        },
    )
    out = _ffi.new("dovecote_pool **")
    os_error = _ffi.new("int *")
    name = _ffi.NULL if path is None else os.fsencode(path)
    _check(_lib.dovecote_pool_open(name, config, out, os_error), path, os_error[0])
    return PoolHandle(_ffi.gc(out[0], _lib.dovecote_pool_close))


def use_threads(pool: PoolHandle, threads: int) -> None:
    """Let one decode use so many threads. Before the first lease."""
    _lib.dovecote_pool_set_threads(pool, threads)


def close_pool(pool: PoolHandle) -> None:
    """Close the pool and free it. Raises: PoolInUse, and the pool stays open."""
    if _lib.dovecote_pool_close(pool) != _lib.DOVECOTE_OK:
        raise PoolInUse(pool_stats(pool)["leases"])
    _ffi.gc(pool, None)


def flush_pool(pool: PoolHandle, path: Path | None) -> None:
    """Write what only memory knows. Raises: PoolIOError."""
    _check(_lib.dovecote_pool_flush(pool), path, _lib.dovecote_pool_errno(pool))


def held_mark(pool: PoolHandle) -> int:
    """A point in the order in which short blocks came into memory."""
    return int(_lib.dovecote_pool_held_mark(pool))


def flush_held(pool: PoolHandle, path: Path | None, mark: int, limit: int) -> int:
    """Write short blocks from before the mark; how many remain. Raises: PoolIOError."""
    left = _ffi.new("uint32_t *")
    status = _lib.dovecote_pool_flush_held(pool, mark, limit, left)
    _check(status, path, _lib.dovecote_pool_errno(pool))
    return int(left[0])


def sync_pool(pool: PoolHandle, path: Path | None) -> None:
    """Flush and wait. Raises: PoolIOError."""
    _check(_lib.dovecote_pool_sync(pool), path, _lib.dovecote_pool_errno(pool))


def check_pool(pool: PoolHandle, path: Path | None) -> None:
    """Verify P4 and the pool's links. Raises: PoolBroken."""
    _check(_lib.dovecote_pool_check(pool), path)


def verify_pool(pool: PoolHandle, first_frame: int, frames: int) -> tuple[int, int, int]:
    """Read and check sealed frames; those checked, those dropped, the next one.

    Raises: ValueError, MemoryError.
    """
    if not 0 <= first_frame <= _FRAMES_MAX or frames < 0:
        raise ValueError(f"there are no frames [{first_frame}, {first_frame + frames})")
    out = _ffi.new("dovecote_verified *")
    _check(_lib.dovecote_pool_verify(pool, first_frame, min(frames, _FRAMES_MAX), out))
    return int(out.checked), int(out.damaged), int(out.next_frame)


def adopt_pool(target: PoolHandle, source: PoolHandle, path: Path | None) -> int:
    """Copy what fits of `source` into `target`; the number of blocks copied.

    Raises: PoolMismatch, MemoryError, PoolIOError.
    """
    copied = _ffi.new("uint64_t *")
    status = _lib.dovecote_pool_adopt(target, source, copied)
    _check(status, path, _lib.dovecote_pool_errno(target))
    return int(copied[0])


def pool_stats(pool: PoolHandle) -> dict[str, int]:
    """The fields of `dovecote_pool_stats`, by name."""
    stats = _ffi.new("dovecote_pool_stats *")
    _lib.dovecote_pool_get_stats(pool, stats)
    return {name: int(getattr(stats, name)) for name in dir(stats)}


# ---- chains


def look_at_chain(pool: PoolHandle, chain: Chain, shared_blocks: int) -> dict[str, int]:
    """The fields of `dovecote_chain_stats`, by name. Raises: ValueError."""
    out = _ffi.new("dovecote_chain_stats *")
    _check(_lib.dovecote_chain_look(pool, _chain_array(chain), shared_blocks, out))
    return {name: int(getattr(out, name)) for name in dir(out)}


def look_at_chains(pool: PoolHandle, chains: Sequence[Chain]) -> list[tuple[int, ...]]:
    """The fields of `dovecote_chain_stats` for each chain, in the struct's order.

    Raises: ValueError.
    """
    array: Any = _chain_array(*chains)
    out = _ffi.new("dovecote_chain_stats[]", len(chains))
    for i in range(len(chains)):
        _check(_lib.dovecote_chain_look(pool, array + i, 0, out + i))
    return [
        (one.tokens, one.blocks, one.own_blocks, one.pinned_blocks, one.superseded) for one in out
    ]


def drop_chain(pool: PoolHandle, chain: Chain, shared_blocks: int) -> int:
    """Free what of the chain is nobody else's; blocks freed. Raises: ValueError."""
    freed = _ffi.new("uint32_t *")
    _check(_lib.dovecote_chain_drop(pool, _chain_array(chain), shared_blocks, freed))
    return int(freed[0])


def pin_chains(pool: PoolHandle, chains: Sequence[Chain], limit_frames: int) -> int:
    """Pin these chains and no others, up to the limit; frames wanted. Raises: ValueError."""
    wanted = _ffi.new("uint64_t *")
    array = _chain_array(*chains)
    _check(_lib.dovecote_pool_pin(pool, array, len(chains), limit_frames, wanted))
    return int(wanted[0])


# ---- lease


def open_lease(pool: PoolHandle, frames: int) -> LeaseHandle:
    """Promise `frames` frames to a lease. Raises: PoolExhausted, MemoryError."""
    out = _ffi.new("dovecote_lease **")
    _check_lease(_lib.dovecote_lease_open(pool, frames, out), pool, frames)
    return LeaseHandle(_ffi.gc(out[0], partial(_close_abandoned_lease, pool)))


def close_lease(lease: LeaseHandle) -> None:
    """Unpin the chain, give unused promises back, free the lease."""
    _ffi.gc(lease, None)
    _lib.dovecote_lease_close(lease)


def match_lease(lease: LeaseHandle, root: bytes | None, tokens: npt.NDArray[np.uint32]) -> int:
    """Pin the longest cached prefix; tokens found. Raises: ValueError, MemoryError."""
    matched = _ffi.new("uint64_t *")
    with _token_ids(tokens) as ids:
        salt = _ffi.NULL if root is None else root
        _check(_lib.dovecote_lease_match(lease, salt, ids, len(tokens), matched))
    return int(matched[0])


def prefetch_lease(lease: LeaseHandle) -> None:
    """Ask for the leased frames to be read ahead."""
    _lib.dovecote_lease_prefetch(lease)


def decode_lease(
    lease: LeaseHandle, blocks: tuple[int, int], layers: tuple[int, int], planes: PlaneArray
) -> int:
    """Decode the matched blocks [start, end) of the layers [start, end); tokens still valid.

    Raises: ValueError, and nothing was written.
    """
    valid = _ffi.new("uint64_t *")
    _check(_lib.dovecote_lease_decode(lease, *blocks, *layers, planes, valid))
    return int(valid[0])


def seal_lease(
    lease: LeaseHandle, pool: PoolHandle, tokens: npt.NDArray[np.uint32], planes: PlaneArray
) -> int:
    """Seal the whole blocks of `tokens`; tokens that the chain covers.

    Raises: ValueError, PoolExhausted, PoolIOError; blocks sealed before the error stay.
    """
    return _seal(lease, pool, tokens, planes, short_block=0)


def seal_lease_short(
    lease: LeaseHandle, pool: PoolHandle, tokens: npt.NDArray[np.uint32], planes: PlaneArray
) -> int:
    """As `seal_lease`, and the rest as a short block, which ends the chain."""
    return _seal(lease, pool, tokens, planes, short_block=1)


def lease_tokens(lease: LeaseHandle) -> int:
    """Tokens of the lease's chain."""
    return int(_lib.dovecote_lease_tokens(lease))


def lease_tip(lease: LeaseHandle) -> bytes:
    """Key of the chain's last block, 16 zero bytes while it is empty."""
    key = _ffi.new("uint8_t[]", _KEY_BYTES)
    _lib.dovecote_lease_tip(lease, key)
    return bytes(_ffi.buffer(key))


def lease_keys(lease: LeaseHandle) -> bytes:
    """The keys of the chain's blocks, one after the other."""
    blocks = int(_lib.dovecote_lease_keys(lease, _ffi.NULL, 0))
    keys = _ffi.new("uint8_t[]", blocks * _KEY_BYTES)
    _lib.dovecote_lease_keys(lease, keys, blocks)
    return bytes(_ffi.buffer(keys))


def lease_root(lease: LeaseHandle) -> bytes:
    """The root that the chain hangs on."""
    root = _ffi.new("uint8_t[]", _KEY_BYTES)
    _lib.dovecote_lease_root(lease, root)
    return bytes(_ffi.buffer(root))


def hold_lease(lease: LeaseHandle, pool: PoolHandle, chain: Chain) -> int:
    """Lease what is left of a noted chain; its tokens. Raises: ValueError, PoolExhausted."""
    tokens = _ffi.new("uint64_t *")
    status = _lib.dovecote_lease_hold(lease, _chain_array(chain), tokens)
    _check_lease(status, pool, chain.blocks)
    return int(tokens[0])


def read_lease(
    lease: LeaseHandle, pool: PoolHandle, block: int, sizes: tuple[int, int]
) -> tuple[npt.NDArray[np.uint32], bytes]:
    """Ids and payload of a leased block; `sizes` are the tokens of a block and a frame's bytes.

    Raises: ValueError; PoolIOError if it cannot be had, with errno 0 for a checksum.
    """
    block_tokens, frame_bytes = sizes
    ids = np.zeros(block_tokens, np.uint32)
    tokens = _ffi.new("uint32_t *")
    payload = _ffi.new("uint8_t[]", frame_bytes)
    with _token_ids(ids) as borrowed:
        status = _lib.dovecote_lease_read(lease, block, borrowed, tokens, payload)
    _check_lease(status, pool, 0)
    return ids[: tokens[0]], bytes(_ffi.buffer(payload))


def write_lease(
    lease: LeaseHandle, pool: PoolHandle, ids: npt.NDArray[np.uint32], payload: bytes
) -> None:
    """Seal one block from its stored form. Raises: ValueError, PoolExhausted, PoolIOError."""
    with _token_ids(ids) as borrowed:
        status = _lib.dovecote_lease_write(lease, borrowed, len(ids), payload)
    _check_lease(status, pool, 1)


# ---- planes and codecs


def view(buffer: SlabBuffer) -> memoryview:
    """The buffer as a view. Raises: TypeError if it is none."""
    untyped: Any = buffer
    return memoryview(untyped)


def export(view: memoryview) -> Export:
    """Hold the memory of a C-contiguous view until `drop_export`."""
    return Export(_ffi.from_buffer(view))


def export_address(held: Export) -> int:
    """Where the exported memory begins."""
    return int(_ffi.cast("uintptr_t", held))


def drop_export(held: Export) -> None:
    """Give the memory back to its owner at once, not when the collector comes by."""
    _ffi.release(held)


def plane_array(planes: Sequence[tuple[int, int, int]]) -> PlaneArray:
    """C planes of (address, head stride in bytes, capacity in tokens)."""
    entries = [(_ffi.cast("void *", address), *rest) for address, *rest in planes]
    return PlaneArray(_ffi.new("dovecote_plane[]", entries))


def plane_bytes(codec: CodecName, dtype: DTypeName, side: int, shape: tuple[int, int, int]) -> int:
    """Bytes that one side (0: K, 1: V) of one layer `[H, T, D]` takes in a frame.

    0 if the codec cannot store that shape.
    """
    heads, tokens, dim = shape
    return int(
        _lib.dovecote_codec_plane_bytes(_CODECS[codec], _DTYPES[dtype], side, heads, dim, tokens)
    )


def crc32c(content: bytes | memoryview, before: int = 0) -> int:
    """CRC-32C of the bytes, going on from that of what is `before` them."""
    buffer = _ffi.from_buffer(content)
    return int(_lib.dovecote_crc32c(before, buffer, len(buffer)))


# ---- private


def _seal(
    lease: LeaseHandle,
    pool: PoolHandle,
    tokens: npt.NDArray[np.uint32],
    planes: PlaneArray,
    *,
    short_block: int,
) -> int:
    sealed = _ffi.new("uint64_t *")
    with _token_ids(tokens) as ids:
        status = _lib.dovecote_lease_seal(lease, ids, len(tokens), planes, short_block, sealed)
    _check_lease(status, pool, 1)
    return int(sealed[0])


def _chain_array(*chains: Chain) -> object:
    """C chains. They point into the keys of `chains`, which the caller keeps."""
    entries = [(_ffi.from_buffer("uint8_t[]", c.keys), c.blocks, c.tokens) for c in chains]
    return _ffi.new("dovecote_chain[]", entries)


def _token_ids(tokens: npt.NDArray[np.uint32]) -> AbstractContextManager[object]:
    """Borrow the array's memory for a `with` block. Raises: ValueError if it has another layout."""
    if tokens.dtype != np.uint32 or tokens.ndim != 1 or not tokens.flags.c_contiguous:
        raise ValueError("token ids must be a contiguous one-dimensional array of uint32")
    borrowed: AbstractContextManager[object] = _ffi.from_buffer("uint32_t[]", tokens)
    return borrowed


def _close_abandoned_lease(_pool: PoolHandle, lease: object) -> None:
    """Close what was never released. Holding `_pool` until here keeps its memory valid."""
    _lib.dovecote_lease_close(lease)


def _check_lease(status: int, pool: PoolHandle, needed_frames: int) -> None:
    if status == _lib.DOVECOTE_ERR_FULL:
        stats = pool_stats(pool)
        available = stats["cached"] + stats["free"] - stats["promised"]
        raise PoolExhausted(needed_frames, available)
    _check(status, None, _lib.dovecote_pool_errno(pool))


def _check(status: int, path: Path | None = None, os_error: int = 0) -> None:
    if status == _lib.DOVECOTE_OK:
        return
    if status == _lib.DOVECOTE_ERR_IO:
        raise PoolIOError(os_error, path)
    about_path = {
        _lib.DOVECOTE_ERR_FORMAT: PoolUnreadable,
        _lib.DOVECOTE_ERR_MISMATCH: PoolMismatch,
        _lib.DOVECOTE_ERR_BUSY: PoolBusy,
        _lib.DOVECOTE_ERR_BROKEN: PoolBroken,
    }
    if status in about_path:
        raise about_path[status](path)
    sentence = _ffi.string(_lib.dovecote_strerror(status)).decode()
    if status == _lib.DOVECOTE_ERR_MEMORY:
        raise MemoryError(sentence)
    raise ValueError(sentence)
