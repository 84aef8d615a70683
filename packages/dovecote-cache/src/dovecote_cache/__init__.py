"""The pool for Python: KV caches of many agents in one file of equal frames.

Knows bytes, tokens and frames. Does not know MLX, models or HTTP.
"""

from __future__ import annotations

from dovecote_cache.archive import Archive, Manifest, Stores, write_archive
from dovecote_cache.book import Agent, AgentBook
from dovecote_cache.budget import Budget, BudgetReport, Tally, keep_budget, make_room
from dovecote_cache.chain import KEY_BYTES, Chain, ChainStats
from dovecote_cache.checkpoints import CHAIN_LIMIT, POOL_SHARE, Checkpoints
from dovecote_cache.directory import CacheDirectory
from dovecote_cache.errors import (
    AgentUnknown,
    ArchiveMismatch,
    ArchiveUnusable,
    BookClosed,
    BookUnusable,
    BudgetTooSmall,
    CacheError,
    Closed,
    LeaseClosed,
    NameTaken,
    PlanesClosed,
    PoolBroken,
    PoolBusy,
    PoolClosed,
    PoolExhausted,
    PoolInUse,
    PoolIOError,
    PoolMismatch,
    PoolUnreadable,
)
from dovecote_cache.fingerprint import FORMAT_VERSION, fingerprint
from dovecote_cache.geometry import CodecName, DTypeName, Geometry, LayerShape
from dovecote_cache.lease import Lease
from dovecote_cache.opening import PoolOpening
from dovecote_cache.planes import RowPlanes
from dovecote_cache.pool import Pool, PoolStats, Verified
from dovecote_cache.weights import digest_weights

__all__ = [
    "CHAIN_LIMIT",
    "FORMAT_VERSION",
    "KEY_BYTES",
    "POOL_SHARE",
    "Agent",
    "AgentBook",
    "AgentUnknown",
    "Archive",
    "ArchiveMismatch",
    "ArchiveUnusable",
    "BookClosed",
    "BookUnusable",
    "Budget",
    "BudgetReport",
    "BudgetTooSmall",
    "CacheDirectory",
    "CacheError",
    "Chain",
    "ChainStats",
    "Checkpoints",
    "Closed",
    "CodecName",
    "DTypeName",
    "Geometry",
    "LayerShape",
    "Lease",
    "LeaseClosed",
    "Manifest",
    "NameTaken",
    "PlanesClosed",
    "Pool",
    "PoolBroken",
    "PoolBusy",
    "PoolClosed",
    "PoolExhausted",
    "PoolIOError",
    "PoolInUse",
    "PoolMismatch",
    "PoolOpening",
    "PoolStats",
    "PoolUnreadable",
    "RowPlanes",
    "Stores",
    "Tally",
    "Verified",
    "digest_weights",
    "fingerprint",
    "keep_budget",
    "make_room",
    "write_archive",
]
