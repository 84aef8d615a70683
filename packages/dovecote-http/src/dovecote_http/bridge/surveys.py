"""Looks at the engine for all who look on: at most once a second, however many they are.

    engine --survey--> one snapshot --> everybody

Does not know what is told of it, nor to whom.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_http.bridge.bridge import EngineStopped
from dovecote_http.bridge.door import DoorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dovecote_engine.agents.agent import AgentView
    from dovecote_engine.agents.runs import Run
    from dovecote_http.bridge.bridge import EngineBridge
    from dovecote_http.bridge.engine_like import EngineLike, StatusLike

__all__ = ["FRESH_S", "Survey", "Surveys"]

FRESH_S = 1.0
"""A survey looks at every agent's chain: however many look on, it is made once in that time."""

_SHARE_OF_TIME = 0.1
"""... and more rarely where it takes long: it may have no more than this share of a core."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the engine told at one moment."""

    status: StatusLike
    agents: Sequence[AgentView]
    runs: Sequence[Run]


class Surveys:
    """Surveys of the engine, shared by all who look. Event loop only."""

    def __init__(self, bridge: EngineBridge, clock: Callable[[], float] = time.monotonic) -> None:
        self._bridge = bridge
        self._clock = clock
        self._last: Survey | None = None
        self._stale_at_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def last(self) -> Survey | None:
        """The last survey if it is fresh, else a new one; None while there is no engine."""
        async with self._one_at_a_time:
            if not self._bridge.health.alive:
                self._last, self._stale_at_s = None, 0.0
            elif self._clock() >= self._stale_at_s:
                began_s = self._clock()
                self._last = await self._look()
                took_s = self._clock() - began_s
                self._stale_at_s = began_s + max(FRESH_S, took_s / _SHARE_OF_TIME)
            return self._last

    async def _look(self) -> Survey | None:
        try:
            return await self._bridge.ask(_make)
        except (EngineStopped, DoorClosed):
            return None


def _make(engine: EngineLike) -> Survey:
    agents, runs = engine.agents.survey()
    return Survey(engine.status, agents, runs)
