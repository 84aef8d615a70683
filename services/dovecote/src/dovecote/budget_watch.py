"""Keeps the disk budget while the server runs: the cache directory may grow after the start.

Every ten minutes what is there is counted again, as at start. Pools of other models go if the
budget asks for it; what may not be removed is told once, in a warning. The open pool stays as it
is.

A thread that ends when its pool is closed: after a swap of models the new pool has one of its own.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from threading import Thread
from typing import TYPE_CHECKING, Final

import structlog

from dovecote_cache import make_room

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dovecote_cache import Budget, CacheDirectory, Pool, Tally

__all__ = ["BudgetWatch", "by_kind"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote")

# Counting a directory of a hundred files takes 2 to 15 ms, on no thread that serves.
_EVERY_S: Final = 600.0


class BudgetWatch:
    """The budget of one open pool's directory."""

    def __init__(
        self, directory: CacheDirectory, pool: Pool, budget: Budget, every_s: float = _EVERY_S
    ) -> None:
        """`budget` as it was kept at start. Starts nothing yet."""
        self._directory, self._pool, self._every_s = directory, pool, every_s
        self._pool_bytes = pool.stats().file_bytes
        # With a budget of its own the directory may hold a pool that was made smaller for it.
        is_bounded = budget.total_bytes is not None
        self._budget = replace(budget, pool_bytes=self._pool_bytes) if is_bounded else budget
        self._is_exceeded = False

    def start(self) -> None:
        """Look from time to time from now on, until the pool is closed."""
        Thread(target=self._watch, name="dovecote-budget", daemon=True).start()

    def look(self, pool_path: Path) -> None:
        """Count, remove what may go if need be, and tell what was done. One thread."""
        try:
            report = make_room(self._directory, pool_path, self._budget)
        except OSError as error:
            _log.warning("disk_budget_unknown", error=str(error))
            return
        if report.removed:
            _log.info("disk_budget_kept", removed=by_kind(report.removed))
        is_exceeded = report.pool_bytes < self._pool_bytes
        if is_exceeded and not self._is_exceeded:
            _log.warning(
                "disk_budget_exceeded",
                budget_bytes=report.total_bytes,
                pool_bytes=self._pool_bytes,
                beside_bytes=report.beside_bytes,
                found=by_kind(report.found),
            )
        self._is_exceeded = is_exceeded

    def _watch(self) -> None:
        path = self._pool.path
        while path is not None and not self._pool.wait_closed(self._every_s):
            self.look(path)


def by_kind(tallies: Mapping[str, Tally]) -> dict[str, dict[str, int]]:
    """Tallies as a log line has them."""
    return {kind: asdict(tally) for kind, tally in tallies.items()}
