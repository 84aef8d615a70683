"""Runs one server: the BLAS library first, then the engine behind its bridge, then the listener."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import structlog
import uvloop

from dovecote.access import build_access
from dovecote.advice import advice_on
from dovecote.config import SettingError
from dovecote.file_limit import file_limit_kept
from dovecote_cache import CacheError
from dovecote_engine import EngineError
from dovecote_http import EngineBridge, HttpSettings, log_json_lines, make_app, serve
from dovecote_native import blas

if TYPE_CHECKING:
    from dovecote.config import Settings

__all__ = ["http_settings", "run"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote")


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 1 if the server could not start.

    Does not return while a thread is left that waits for nobody: the process then ends here.
    """
    log_json_lines()
    code = _serve(settings)
    if any(thread.daemon for thread in threading.enumerate()):
        # An engine inside MLX cannot be waited for. At the interpreter's end its thread would be
        # unwound through C++ frames that do not allow it, and the process aborted.
        sys.stderr.flush()
        os._exit(code)
    return code


def _serve(settings: Settings) -> int:
    _activate_blas(settings)
    with file_limit_kept():
        # Imports MLX, which binds to whatever BLAS is there by then.
        from dovecote.catalogue import LocalModels

    try:
        models = LocalModels(settings)
        bridge = EngineBridge(models.find(settings.model).factory)
        access = build_access(settings)
        app = make_app(bridge, http_settings(settings), catalogue=models, access=access)
        return uvloop.run(serve(app, settings.host, settings.port))
    except (EngineError, CacheError, SettingError, OSError, MemoryError) as error:
        _log.error("not_started", reason=str(error), advice=advice_on(error))
        return 1


def http_settings(settings: Settings) -> HttpSettings:
    """What the settings say of the HTTP service."""
    return HttpSettings(
        max_body_bytes=settings.max_body_bytes,
        keepalive_s=settings.keepalive_s,
        drain_s=settings.drain_s,
        request_timeout_s=settings.request_timeout_s,
        receive_timeout_s=settings.receive_timeout_s,
        send_timeout_s=settings.send_timeout_s,
        max_connections=settings.max_connections,
        model_aliases=frozenset(settings.model_aliases),
    )


def _activate_blas(settings: Settings) -> None:
    """Put OpenBLAS in front of MLX where that helps, and say what is active."""
    if not settings.blas:
        _log.info("blas", active=False, reason="turned off by --no-blas")
        return
    report = blas.activate(settings.threads)
    _log.info(
        "blas",
        active=report.active,
        library=report.library,
        threads=report.threads,
        reason=report.reason,
    )
