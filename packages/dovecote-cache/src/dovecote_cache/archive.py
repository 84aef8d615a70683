"""One agent as a file of its own: its settings, its chain's blocks and the states along it, to be
taken elsewhere.

Header, 128 bytes; all integers are little-endian

  OFFSET  SIZE  MEANING
       0     8  magic "DOVEAGNT"
       8     4  format version: 2 with checkpoints, 1 without
      12     4  CRC-32C of bytes 16 to 128
      16     4  bytes of the manifest
      20     4  CRC-32C of the manifest
      24     4  tokens in a block
      28     4  blocks
      32     8  tokens
      40     8  bytes of a block's payload
      48     8  the file's size
      56     8  bytes of a checkpoint's state; zeros without checkpoints
      64    32  fingerprint of the model (P8)
      96    16  root of the chain: made from its salt, zeros without one
     112     4  checkpoints
     116    12  zeros

Then the manifest, JSON; then the blocks in order, each

       0     4  CRC-32C of the rest of the block
       4     4  tokens; fewer than a block's only in the last one
       8     4  token id 0, ..., zeros from `tokens` on
       .     .  payload: K and V as the pool stores them

and the checkpoints in order, of a model with recurrent state

       0     4  CRC-32C of the rest of the checkpoint
       4     4  how many blocks it follows
       8    32  digest of the token ids before it and of the state's layout (checkpoints.py)
      40     .  state

Keys are left out: they depend on the secret of the pool that a block is in. Checksums find damage,
not malice: what an archive says about its tokens' K, V and states is taken on its maker's word.
What it says about sizes is compared with the file's own, and with the pool's and the model's,
before any of it is read.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, astuple, dataclass, replace
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from dovecote_cache import _native
from dovecote_cache.checkpoints import CHAIN_LIMIT
from dovecote_cache.errors import ArchiveMismatch, ArchiveUnusable
from dovecote_cache.lease import root_of
from dovecote_cache.private import private_replacement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    import numpy.typing as npt

    from dovecote_cache.chain import Chain
    from dovecote_cache.checkpoints import Checkpoints
    from dovecote_cache.lease import Lease
    from dovecote_cache.pool import Pool

    Ids = npt.NDArray[np.uint32]
    Block = tuple[Ids, bytes]

__all__ = ["Archive", "Manifest", "Stores", "write_archive"]

_MAGIC: Final = b"DOVEAGNT"
_PLAIN_VERSION: Final = 1
_VERSION: Final = 2
_HEADER: Final = struct.Struct("<8sII IIIIQQQQ 32s16sI12x")
_CHECKED_FROM: Final = 16
_BLOCK_HEAD: Final = struct.Struct("<II")
_STATE_HEAD: Final = struct.Struct("<II32s")
_SUM_BYTES: Final = 4
_MAX_MANIFEST_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive tells of its agent. Times are unix seconds."""

    name: str
    model: str
    created: float
    pinned: bool = False
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stores:
    """What keeps the parts of a chain: no checkpoints if its model has no recurrent state."""

    pool: Pool
    checkpoints: Checkpoints | None = None


def write_archive(
    path: Path, stores: Stores, chain: Chain, manifest: Manifest, go_on: Callable[[], None]
) -> int:
    """Write what there is of the chain to a file of mode 0600 at `path`; its tokens.

    Blocks, and the last checkpoints along them. The chain is leased meanwhile. `go_on` is called
    before each of either and may raise. Raises: PoolExhausted, PoolIOError, OSError, and what
    `go_on` raised; `path` is then as it was.
    """
    pool = stores.pool
    with pool.lease(0) as lease:
        tokens = lease.hold(chain)
        header, text = _head(pool, lease, manifest)
        with private_replacement(path) as file:
            file.seek(_HEADER.size)
            file.write(text)
            ids = []
            for number in range(header.blocks):
                go_on()
                block = lease.read(number)
                ids.append(block[0])
                _write_block(file, header.block_tokens, block)
            if stores.checkpoints is not None:
                go_on()
                whole = ids[: tokens // header.block_tokens]
                count = _write_states(file, stores.checkpoints, chain, whole)
                header = header.with_states(count, stores.checkpoints.state_bytes)
            _write_header(file, header)
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
    state_bytes: int
    fingerprint: bytes
    root: bytes
    checkpoints: int

    @property
    def ids_bytes(self) -> int:
        return 4 * self.block_tokens

    @property
    def block_bytes(self) -> int:
        return _BLOCK_HEAD.size + self.ids_bytes + self.payload_bytes

    def with_states(self, count: int, state_bytes: int) -> _Header:
        """That of the same archive with so many checkpoints."""
        return replace(self, checkpoints=count, state_bytes=state_bytes if count else 0)

    @property
    def record_bytes(self) -> int:
        """Bytes of a checkpoint."""
        return _STATE_HEAD.size + self.state_bytes

    @property
    def states_start(self) -> int:
        return _HEADER.size + self.manifest_bytes + self.blocks * self.block_bytes

    @property
    def end(self) -> int:
        """How large the file has to be."""
        return self.states_start + self.checkpoints * self.record_bytes

    @property
    def is_coherent(self) -> bool:
        has_states, may_have_states = self.state_bytes > 0, self.checkpoints > 0
        blocks = -(-self.tokens // max(1, self.block_tokens))
        return (
            blocks == self.blocks
            and has_states == may_have_states
            and self.checkpoints <= CHAIN_LIMIT
        )

    def pack(self) -> bytes:
        version = _VERSION if self.checkpoints else _PLAIN_VERSION
        fields = astuple(self)
        checked = _HEADER.pack(_MAGIC, version, 0, *fields)[_CHECKED_FROM:]
        return _HEADER.pack(_MAGIC, version, _native.crc32c(checked), *fields)


class Archive:
    """An archive open for reading, as a context manager. One thread."""

    __slots__ = ("_file", "_header", "_ids", "_path", "manifest")

    def __init__(self, path: Path) -> None:
        """Open the archive and verify its header, manifest and size.

        Raises: ArchiveUnusable, OSError.
        """
        self._path = path
        self._ids: list[Ids] = []
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

    def verify(self, stores: Stores, go_on: Callable[[], None]) -> None:
        """Read every block and checkpoint and their checksums. `go_on` is called before each and
        may raise.

        Raises: ArchiveMismatch if it is for another pool, ArchiveUnusable if it is damaged or its
        checkpoints are none of the model as it is served, OSError.
        """
        header, pool = self._header, stores.pool
        ours = (pool.fingerprint, pool.geometry.block_tokens, pool.frame_bytes)
        if (header.fingerprint, header.block_tokens, header.payload_bytes) != ours:
            raise ArchiveMismatch(self._path)
        kept_bytes = None if stores.checkpoints is None else stores.checkpoints.state_bytes
        if header.checkpoints and kept_bytes is None:
            raise self._unusable("it holds recurrent states, and this model keeps none")
        if header.checkpoints and header.state_bytes != kept_bytes:
            raise self._unusable(
                f"its recurrent states have {header.state_bytes} bytes, this model's {kept_bytes}"
            )
        self._ids.clear()
        for tokens, _ in self._blocks():
            go_on()
            self._ids.append(tokens)
        if stores.checkpoints is not None:
            for _ in self._states(stores.checkpoints):
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

    def copy_states(
        self, checkpoints: Checkpoints, chain: Chain, go_on: Callable[[], None]
    ) -> None:
        """Keep the checkpoints under the chain that `copy_into` gave: as many as there is room for.

        Of an archive that `verify` found sound. `go_on` is called before each and may raise.
        Raises: ArchiveUnusable, OSError.
        """
        for blocks, before, state in self._states(checkpoints):
            go_on()
            checkpoints.bring(chain, blocks, before, state)

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
        if version not in (_PLAIN_VERSION, _VERSION):
            raise self._unusable(f"format version {version}, not {_PLAIN_VERSION} or {_VERSION}")
        header = _Header(*fields)
        if checksum != _native.crc32c(packed[_CHECKED_FROM:]) or packed != header.pack():
            raise self._unusable("the header is damaged")
        size = os.fstat(self._file.fileno()).st_size
        if not size == header.file_bytes == header.end:
            raise self._unusable(f"{size} bytes instead of {header.file_bytes}: cut off or grown")
        if not header.is_coherent:
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

    def _states(self, checkpoints: Checkpoints) -> Iterator[tuple[int, bytes, bytes]]:
        """How many blocks each follows, their token ids, and the state."""
        header = self._header
        self._file.seek(header.states_start)
        last = 0
        for number in range(header.checkpoints):
            head, state = self._read(_STATE_HEAD.size), self._read(header.state_bytes)
            checksum, blocks, digest = _STATE_HEAD.unpack(head)
            if checksum != _native.crc32c(state, _native.crc32c(head[_SUM_BYTES:])):
                raise self._unusable(f"checkpoint {number} is damaged")
            before = _packed(self._ids[:blocks])
            is_in_order = last < blocks <= header.tokens // header.block_tokens
            if not is_in_order or digest != checkpoints.digest(before):
                raise self._unusable(f"checkpoint {number} is not of this chain and model")
            last = blocks
            yield blocks, before, state

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


def _head(pool: Pool, lease: Lease, manifest: Manifest) -> tuple[_Header, bytes]:
    """The header, without checkpoints and the file's size, and the manifest."""
    text = json.dumps(asdict(manifest), sort_keys=True, allow_nan=False).encode()
    header = _Header(
        manifest_bytes=len(text),
        manifest_sum=_native.crc32c(text),
        block_tokens=pool.geometry.block_tokens,
        blocks=pool.geometry.blocks(lease.tokens),
        tokens=lease.tokens,
        payload_bytes=pool.frame_bytes,
        file_bytes=0,
        state_bytes=0,
        fingerprint=pool.fingerprint,
        root=lease.root,
        checkpoints=0,
    )
    return header, text


def _write_header(file: IO[bytes], header: _Header) -> None:
    """Last, when it is known how much came of it."""
    file.seek(0)
    file.write(replace(header, file_bytes=header.end).pack())


def _write_block(file: IO[bytes], block_tokens: int, block: Block) -> None:
    tokens, payload = block
    ids = np.zeros(block_tokens, "<u4")
    ids[: len(tokens)] = tokens
    rest = struct.pack("<I", len(tokens)) + ids.tobytes() + payload
    file.write(struct.pack("<I", _native.crc32c(rest)) + rest)


def _write_states(
    file: IO[bytes], checkpoints: Checkpoints, chain: Chain, ids: Sequence[Ids]
) -> int:
    """Write the last checkpoints along the chain's blocks, which have those ids; how many.

    One that turns out to be damaged is left out.
    """
    written = 0
    for blocks in checkpoints.ends(chain, len(ids))[-CHAIN_LIMIT:]:
        before = _packed(ids[:blocks])
        state = checkpoints.get(chain, blocks, before)
        if state is None:
            continue
        rest = _STATE_HEAD.pack(0, blocks, checkpoints.digest(before))[_SUM_BYTES:]
        file.write(struct.pack("<I", _native.crc32c(state, _native.crc32c(rest))) + rest)
        file.write(state)
        written += 1
    return written


def _packed(ids: Sequence[Ids]) -> bytes:
    """Token ids as states are digested with."""
    return b"".join(each.astype("<u4").tobytes() for each in ids)
