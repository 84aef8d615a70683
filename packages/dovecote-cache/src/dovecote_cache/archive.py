"""One agent as a file of its own: its settings and its chain's blocks, to be taken elsewhere.

Header, 128 bytes; all integers are little-endian

  OFFSET  SIZE  MEANING
       0     8  magic "DOVEAGNT"
       8     4  format version, 1
      12     4  CRC-32C of bytes 16 to 128
      16     4  bytes of the manifest
      20     4  CRC-32C of the manifest
      24     4  tokens in a block
      28     4  blocks
      32     8  tokens
      40     8  bytes of a block's payload
      48     8  the file's size
      56     8  zeros
      64    32  fingerprint of the model (P8)
      96    16  root of the chain: made from its salt, zeros without one
     112    16  zeros

Then the manifest, JSON; then the blocks in order, each

       0     4  CRC-32C of the rest of the block
       4     4  tokens; fewer than a block's only in the last one
       8     4  token id 0, ..., zeros from `tokens` on
       .     .  payload: K and V as the pool stores them

Keys are left out: they depend on the secret of the pool that a block is in. Checksums find damage,
not malice: what an archive says about its tokens' K and V is taken on its maker's word.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from dovecote_cache import _native
from dovecote_cache.errors import ArchiveMismatch, ArchiveUnusable
from dovecote_cache.lease import root_of
from dovecote_cache.private import private_replacement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

    import numpy.typing as npt

    from dovecote_cache.chain import Chain
    from dovecote_cache.lease import Lease
    from dovecote_cache.pool import Pool

    Block = tuple[npt.NDArray[np.uint32], bytes]

__all__ = ["Archive", "Manifest", "write_archive"]

_MAGIC: Final = b"DOVEAGNT"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sII IIIIQQQ8x 32s16s16x")
_CHECKED_FROM: Final = 16
_BLOCK_HEAD: Final = struct.Struct("<II")
_MAX_MANIFEST_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive tells of its agent. Times are unix seconds."""

    name: str
    model: str
    created: float
    pinned: bool = False
    ttl_s: float | None = None


def write_archive(
    path: Path, pool: Pool, chain: Chain, manifest: Manifest, go_on: Callable[[], None]
) -> int:
    """Write what the pool has of the chain to a file of mode 0600 at `path`; its tokens.

    The chain is leased meanwhile. `go_on` is called before each block and may raise.
    Raises: PoolExhausted, PoolIOError, OSError, and what `go_on` raised; `path` is then as it was.
    """
    with pool.lease(0) as lease:
        tokens = lease.hold(chain)
        blocks = pool.geometry.blocks(tokens)
        with private_replacement(path) as file:
            file.write(_head(pool, lease, manifest))
            for block in range(blocks):
                go_on()
                _write_block(file, pool.geometry.block_tokens, lease.read(block))
    return tokens


@dataclass(frozen=True, slots=True)
class _Header:
    manifest_bytes: int
    manifest_sum: int
    block_tokens: int
    blocks: int
    tokens: int
    payload_bytes: int
    file_bytes: int
    fingerprint: bytes
    root: bytes

    @property
    def ids_bytes(self) -> int:
        return 4 * self.block_tokens

    @property
    def block_bytes(self) -> int:
        return _BLOCK_HEAD.size + self.ids_bytes + self.payload_bytes

    def pack(self) -> bytes:
        fields = (
            self.manifest_bytes,
            self.manifest_sum,
            self.block_tokens,
            self.blocks,
            self.tokens,
            self.payload_bytes,
            self.file_bytes,
            self.fingerprint,
            self.root,
        )
        checked = _HEADER.pack(_MAGIC, _VERSION, 0, *fields)[_CHECKED_FROM:]
        return _HEADER.pack(_MAGIC, _VERSION, _native.crc32c(checked), *fields)


class Archive:
    """An archive open for reading, as a context manager. One thread."""

    __slots__ = ("_file", "_header", "_path", "manifest")

    def __init__(self, path: Path) -> None:
        """Open the archive and verify its header, manifest and size.

        Raises: ArchiveUnusable, OSError.
        """
        self._path = path
        self._file = path.open("rb")
        try:
            self._header = self._read_header()
            self.manifest = self._read_manifest()
        except BaseException:
            self._file.close()
            raise

    @property
    def tokens(self) -> int:
        """Tokens of the chain."""
        return self._header.tokens

    def verify(self, pool: Pool, go_on: Callable[[], None]) -> None:
        """Read every block and its checksum. `go_on` is called before each and may raise.

        Raises: ArchiveMismatch if it is for another pool, ArchiveUnusable if it is damaged,
        OSError.
        """
        header = self._header
        ours = (pool.fingerprint, pool.geometry.block_tokens, pool.frame_bytes)
        if (header.fingerprint, header.block_tokens, header.payload_bytes) != ours:
            raise ArchiveMismatch(self._path)
        for _ in self._blocks():
            go_on()

    def copy_into(
        self, lease: Lease, go_on: Callable[[], None], salt: bytes | None = None
    ) -> Chain:
        """Seal the blocks under the lease, which was promised frames for all `tokens`.

        Under the salt, or without one (None) under the root that the archive names.
        Blocks that the pool has already are shared. `go_on` is called before each block and may
        raise. Raises: PoolExhausted, PoolIOError, ArchiveUnusable, OSError.
        """
        lease.begin_under(self._header.root if salt is None else root_of(salt))
        for tokens, payload in self._blocks():
            go_on()
            lease.write(tokens, payload)
        return lease.chain

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _read_header(self) -> _Header:
        packed = self._read(_HEADER.size)
        magic, version, checksum, *fields = _HEADER.unpack(packed)
        if magic != _MAGIC:
            raise self._unusable("not an agent's archive")
        if version != _VERSION:
            raise self._unusable(f"format version {version}, not {_VERSION}")
        header = _Header(*fields)
        if checksum != _native.crc32c(packed[_CHECKED_FROM:]) or packed != header.pack():
            raise self._unusable("the header is damaged")
        body_bytes = header.manifest_bytes + header.blocks * header.block_bytes
        size = os.fstat(self._file.fileno()).st_size
        if not size == header.file_bytes == _HEADER.size + body_bytes:
            raise self._unusable(f"{size} bytes instead of {header.file_bytes}: cut off or grown")
        if -(-header.tokens // max(1, header.block_tokens)) != header.blocks:
            raise self._unusable("the header contradicts itself")
        return header

    def _read_manifest(self) -> Manifest:
        header = self._header
        if header.manifest_bytes > _MAX_MANIFEST_BYTES:
            raise self._unusable("the manifest is too long")
        text = self._read(header.manifest_bytes)
        if _native.crc32c(text) != header.manifest_sum:
            raise self._unusable("the manifest is damaged")
        try:
            return _manifest(json.loads(text))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._unusable("the manifest makes no sense") from error

    def _blocks(self) -> Iterator[Block]:
        header = self._header
        self._file.seek(_HEADER.size + header.manifest_bytes)
        for number in range(header.blocks):
            stored = self._read(header.block_bytes)
            checksum, count = _BLOCK_HEAD.unpack_from(stored)
            expected = min(header.block_tokens, header.tokens - number * header.block_tokens)
            if _native.crc32c(stored[4:]) != checksum or count != expected:
                raise self._unusable(f"block {number} is damaged")
            tokens = np.frombuffer(stored, "<u4", count, _BLOCK_HEAD.size).astype(np.uint32)
            yield tokens, stored[_BLOCK_HEAD.size + header.ids_bytes :]

    def _read(self, count: int) -> bytes:
        read = self._file.read(count)
        if len(read) != count:
            raise self._unusable("cut off")
        return read

    def _unusable(self, reason: str) -> ArchiveUnusable:
        return ArchiveUnusable(self._path, reason)


def _manifest(given: dict[str, object]) -> Manifest:
    """Raises: KeyError, TypeError or ValueError if it is none."""
    name, model, pinned = given["name"], given["model"], given["pinned"]
    created, ttl_s = given["created"], given["ttl_s"]
    if not (isinstance(name, str) and isinstance(model, str) and isinstance(pinned, bool)):
        raise TypeError
    if not isinstance(created, int | float) or not isinstance(ttl_s, int | float | None):
        raise TypeError
    if ttl_s is not None and not ttl_s > 0:
        raise ValueError
    return Manifest(name, model, float(created), pinned, None if ttl_s is None else float(ttl_s))


def _head(pool: Pool, lease: Lease, manifest: Manifest) -> bytes:
    blocks = pool.geometry.blocks(lease.tokens)
    text = json.dumps(asdict(manifest), sort_keys=True, allow_nan=False).encode()
    header = _Header(
        manifest_bytes=len(text),
        manifest_sum=_native.crc32c(text),
        block_tokens=pool.geometry.block_tokens,
        blocks=blocks,
        tokens=lease.tokens,
        payload_bytes=pool.frame_bytes,
        file_bytes=0,
        fingerprint=pool.fingerprint,
        root=lease.root,
    )
    file_bytes = _HEADER.size + len(text) + blocks * header.block_bytes
    return replace(header, file_bytes=file_bytes).pack() + text


def _write_block(file: IO[bytes], block_tokens: int, block: Block) -> None:
    tokens, payload = block
    ids = np.zeros(block_tokens, "<u4")
    ids[: len(tokens)] = tokens
    rest = struct.pack("<I", len(tokens)) + ids.tobytes() + payload
    file.write(struct.pack("<I", _native.crc32c(rest)) + rest)
