"""Puts an engine together from settings: model, pool, agents' book.

The only place that names the concrete classes of all packages together. Imports MLX: to be imported
after the BLAS library is in place.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.progress import Progress

from dovecote_cache import AgentBook, CacheDirectory, Pool, digest_weights, fingerprint
from dovecote_engine import Engine, EngineOptions, LoadedModel, load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dovecote.config import Settings

__all__ = ["build_engine"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote")


def build_engine(settings: Settings) -> Engine:
    """Load the model and open its pool. Call it in the thread that will step the engine.

    Raises: ModelError, CacheError, OSError.
    """
    directory = CacheDirectory(settings.cache_dir)
    model = _load(settings, directory)
    pool = _open_pool(settings, directory, model)
    book = AgentBook.open(directory.agents_path)
    options = EngineOptions(
        max_rows=settings.max_rows,
        max_waiting=settings.max_waiting,
        chunk_seconds=settings.chunk_ms / 1000,
    )
    return Engine(model, pool, book, options)


def _load(settings: Settings, directory: CacheDirectory) -> LoadedModel:
    with _conversion_bar() as progress:
        model = load_model(
            settings.model,
            models_dir=directory.models,
            progress=progress,
            block_tokens=settings.block_tokens,
        )
    _log.info("model_loaded", model=model.id, context_tokens=model.context_tokens)
    return model


@contextmanager
def _conversion_bar() -> Iterator[Callable[[int, int], None] | None]:
    """Shows on a terminal how far a model's conversion is."""
    if not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("converting the model", visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield show


def _open_pool(settings: Settings, directory: CacheDirectory, model: LoadedModel) -> Pool:
    print_ = fingerprint(
        weights=digest_weights(model.weight_files, directory.digests_path),
        config=model.config,
        dtype=model.dtype,
        codec=settings.codec,
        block_tokens=settings.block_tokens,
    )
    path = None if settings.memory_only else directory.pool_path(model.id, print_)
    pool = Pool.open(
        path,
        geometry=model.geometry,
        codec=settings.codec,
        fingerprint=print_,
        size_bytes=settings.pool_bytes,
    )
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
