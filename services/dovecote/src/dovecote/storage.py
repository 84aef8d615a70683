"""Opens what a server keeps: the pool, within its disk budget, and the agents' book.

With `--memory-only` both are in memory, and of the cache directory only the converted model is
used. Does not know the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from dovecote.budget_watch import BudgetWatch, by_kind
from dovecote.config import SettingError
from dovecote_cache import (
    POOL_SHARE,
    AgentBook,
    Budget,
    BudgetReport,
    CacheDirectory,
    Pool,
    digest_weights,
    fingerprint,
    keep_budget,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote.config import Settings
    from dovecote_engine import LoadedModel

__all__ = ["models_dir", "open_stores"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote")


def models_dir(settings: Settings) -> Path:
    """Where converted models lie. With `--memory-only` it may be read-only, or missing.

    Raises: OSError if the cache directory is needed and cannot be made.
    """
    if settings.memory_only and not _can_be_written(settings.cache_dir):
        return settings.cache_dir / "models"
    return CacheDirectory(settings.cache_dir).models


def open_stores(settings: Settings, model: LoadedModel) -> tuple[Pool, AgentBook]:
    """The pool and the book of this model; of one that cannot be cached, empty ones in memory.

    Raises: SettingError if not one block fits into the pool; CacheError, OSError, MemoryError.
    """
    if model.uncached:
        return _nothing_kept(model), AgentBook.in_memory()
    least = _least_bytes(settings, model)
    if settings.memory_only:
        # A pool that nobody opens again needs no digest of the weights.
        size_bytes = settings.pool_bytes - _states_bytes(settings, model)
        pool = _open_pool(settings, model, None, bytes(32), size_bytes)
        return pool, AgentBook.in_memory()
    directory = CacheDirectory(settings.cache_dir)
    print_ = _fingerprint(settings, directory, model)
    path = directory.pool_path(model.id, print_)
    states_bytes = _states_bytes(settings, model)
    pool_bytes = settings.pool_bytes - states_bytes
    budget = Budget(pool_bytes, least, settings.disk_budget_bytes, states_bytes)
    report = keep_budget(directory, path, budget)
    _log_budget(settings, report)
    pool = _open_pool(settings, model, path, print_, report.pool_bytes)
    BudgetWatch(directory, pool, budget).start()
    return pool, AgentBook.open(directory.agents_path)


def _nothing_kept(model: LoadedModel) -> Pool:
    """A pool of one frame in memory, which stays empty."""
    geometry = model.geometry
    size_bytes = geometry.file_bytes("exact", geometry.block_tokens)
    return Pool.open(
        None, geometry=geometry, codec="exact", fingerprint=bytes(32), size_bytes=size_bytes
    )


def _can_be_written(path: Path) -> bool:
    """Whether the directory is there for this process to write, or can be made."""
    try:
        probe = CacheDirectory(path).models / ".writable"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError:
        return False
    return True


def _least_bytes(settings: Settings, model: LoadedModel) -> int:
    """What a pool needs for one context, or all of `--pool-size` where that is less.

    Raises: SettingError if that is not one block.
    """
    pool_bytes = settings.pool_bytes - _states_bytes(settings, model)
    try:
        block = model.geometry.file_bytes(settings.codec, settings.block_tokens)
    except ValueError as error:
        raise SettingError("--codec", str(error)) from error
    if pool_bytes < block:
        message = f"{pool_bytes} bytes are less than one block takes: {block} bytes"
        raise SettingError("--pool-size", message)
    context = model.geometry.file_bytes(settings.codec, model.context_tokens)
    return min(pool_bytes, context)


def _states_bytes(settings: Settings, model: LoadedModel) -> int:
    """The part of `--pool-size` that is for checkpoints; none without recurrent state."""
    if not model.is_recurrent:
        return 0
    most = min(settings.pool_bytes, settings.disk_budget_bytes or settings.pool_bytes)
    return most // (POOL_SHARE + 1)


def _fingerprint(settings: Settings, directory: CacheDirectory, model: LoadedModel) -> bytes:
    return fingerprint(
        weights=digest_weights(model.weight_files, directory.digests_path),
        config=model.config,
        dtype=model.dtype,
        codec=settings.codec,
        block_tokens=settings.block_tokens,
    )


def _open_pool(
    settings: Settings, model: LoadedModel, path: Path | None, print_: bytes, size_bytes: int
) -> Pool:
    pool = Pool.open(
        path,
        geometry=model.geometry,
        codec=settings.codec,
        fingerprint=print_,
        size_bytes=size_bytes,
    )
    pool.use_threads(settings.threads)
    stats = pool.stats()
    _log.info(
        "pool_opened",
        path=str(path) if path else "memory",
        how=pool.opened.how,
        reason=pool.opened.reason,
        codec=pool.codec,
        frames=stats.frames,
        cached=stats.cached,
        bytes_a_token=stats.frame_bytes / settings.block_tokens,
        missed=stats.miss_checksum + stats.miss_orphan,
    )
    return pool


def _log_budget(settings: Settings, report: BudgetReport) -> None:
    """One line on what lies on disk, what went, and whether the pool had to be made smaller."""
    is_smaller = report.pool_bytes < settings.pool_bytes
    (_log.warning if is_smaller else _log.info)(
        "disk_budget",
        budget_bytes=report.total_bytes,
        pool_bytes=report.pool_bytes,
        asked_pool_bytes=settings.pool_bytes,
        found=by_kind(report.found),
        removed=by_kind(report.removed),
    )
