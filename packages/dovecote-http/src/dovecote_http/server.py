"""The life of the process: start, listen, drain at the first signal, give up at the second.

    loading --ready--> listening --signal--> draining --idle or drain_s--> closed
                                                `------second signal-----> closed

While draining, the listener stays open: readiness and new work are answered with 503.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from dovecote_http.access.listener import Listener
from dovecote_http.keys import ACCESS, BRIDGE, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from aiohttp import web

    from dovecote_http.access.api_keys import KeyRing

__all__ = ["serve"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote.server")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_CLEAN_EXIT = 0
_FORCED_EXIT = 1


async def serve(app: web.Application, host: str = "127.0.0.1", port: int = 8080) -> int:
    """Serves until a signal ends it; returns the process's exit code.

    Main thread only (signals). Port 0 takes a free one; the event `listening` tells it.
    Raises: OSError if the address cannot be had, and what the engine's factory raised.
    """
    with _stop_signals() as signals, _key_reloads(app):
        listener = Listener(app)
        if not await _done_before(signals, listener.prepare()):
            _log.info("stopped_while_loading")
            return _CLEAN_EXIT
        try:
            actual_port = await listener.open(host, port)
            _log.info("listening", host=host, port=actual_port)
            await signals.get()
            return await _drain(app, signals)
        finally:
            await listener.close()
            _log.info("stopped")


async def _drain(app: web.Application, signals: asyncio.Queue[int]) -> int:
    drain_s = app[SETTINGS].drain_s
    _log.info("draining", drain_s=drain_s)
    if not await _done_before(signals, app[BRIDGE].drain(drain_s)):
        _log.warning("forced")
        await app[BRIDGE].stop()  # ends the streams at once
        return _FORCED_EXIT
    return _CLEAN_EXIT


async def _done_before(signals: asyncio.Queue[int], work: Coroutine[None, None, object]) -> bool:
    """True if the work ended before the next signal, which otherwise cancels it."""
    working = asyncio.ensure_future(work)
    signalled = asyncio.ensure_future(signals.get())
    try:
        await asyncio.wait((working, signalled), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        signalled.cancel()
        await asyncio.wait((working, signalled))


@contextmanager
def _key_reloads(app: web.Application) -> Iterator[None]:
    """At SIGHUP the keys are read again; if that fails, those of before stay."""
    loop, keys, tasks = asyncio.get_running_loop(), app[ACCESS].keys, set[asyncio.Task[None]]()
    if keys is None:
        yield
        return

    async def reload(keys: KeyRing = keys) -> None:
        try:
            await asyncio.to_thread(keys.reload)
        except (ValueError, OSError) as error:
            _log.error("api_keys_not_reloaded", reason=str(error))
        else:
            _log.info("api_keys_reloaded", keys=len(keys))

    def begin() -> None:
        task = asyncio.ensure_future(reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


@contextmanager
def _stop_signals() -> Iterator[asyncio.Queue[int]]:
    """The stop signals of the process, as they come in."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[int] = asyncio.Queue()
    for number in _SIGNALS:
        loop.add_signal_handler(number, arrived.put_nowait, number)
    try:
        yield arrived
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
