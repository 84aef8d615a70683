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

from dovecote.storage import models_dir, open_stores
from dovecote_engine import Engine, EngineOptions, LoadedModel, leave_thread, load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dovecote.config import Settings

__all__ = ["build_engine", "engine_options"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote")


def build_engine(settings: Settings) -> Engine:
    """Load the model and open its pool. Call it in the thread that will step the engine.

    Raises: ModelError, SettingError, CacheError, OSError, MemoryError; the thread is then to end.
    """
    try:
        return _build(settings)
    except BaseException:
        leave_thread()
        raise


def _build(settings: Settings) -> Engine:
    model = _load(settings, models_dir(settings))
    pool, book = open_stores(settings, model)
    return Engine(model, pool, book, engine_options(settings))


def engine_options(settings: Settings) -> EngineOptions:
    """What the settings say of the engine."""
    return EngineOptions(
        max_rows=settings.max_rows,
        max_waiting=settings.max_waiting,
        max_waiting_tokens=settings.max_waiting_tokens,
        queue_seconds=settings.queue_timeout_s,
        slab_bytes=settings.slab_bytes,
        pin_limit=settings.pin_limit,
        gap_ratio=settings.gap_ratio,
        chunk_seconds=settings.chunk_ms / 1000,
    )


def _load(settings: Settings, folder: Path) -> LoadedModel:
    with _conversion_bar() as progress:
        model = load_model(
            settings.model,
            models_dir=folder,
            progress=progress,
            block_tokens=settings.block_tokens,
        )
    _log.info("model_loaded", model=model.id, context_tokens=model.context_tokens)
    if model.uncached:
        _log.warning("model_uncached", model=model.id, reason=model.uncached)
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
