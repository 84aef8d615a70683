"""Waiting for an engine to be replaced, and holding its successor back."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_http import EngineBridge
    from dovecote_http.bridge.engine_like import EngineLike

TIMEOUT_S = 20.0


async def settled(bridge: EngineBridge) -> None:
    """Returns once the engine is up, or down for good."""
    async with asyncio.timeout(TIMEOUT_S):
        while bridge.health.state not in ("up", "down"):
            await asyncio.sleep(0.005)


def held(factory: Callable[[], EngineLike]) -> tuple[Callable[[], EngineLike], threading.Event]:
    """A factory that waits for the event first."""
    go = threading.Event()

    def wait_and_make() -> EngineLike:
        assert go.wait(TIMEOUT_S)
        return factory()

    return wait_and_make, go
