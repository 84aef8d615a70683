"""The last minutes in numbers: tokens, queue and time to first token, in slots of two seconds.

    observe(event)* --sample(status)--> a slot, and the oldest one beyond KEPT_SLOTS goes

Memory is bounded: KEPT_SLOTS slots, and sums for the one that is being filled. Does not know who
asks for it, nor requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.request import Finished, Started, TokenEvent
from dovecote_http.bridge.bridge import EngineStopped
from dovecote_http.bridge.door import DoorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dovecote_engine.request import Event
    from dovecote_http.bridge.bridge import EngineBridge
    from dovecote_http.bridge.engine_like import StatusLike

__all__ = ["KEPT_SLOTS", "SLOT_S", "History", "Slot", "keep_sampling"]

SLOT_S = 2.0
KEPT_SLOTS = 150
"""Five minutes."""


@dataclass(frozen=True, slots=True)
class Slot:
    """`span_s` seconds. Rates are means over them, `running` and `waiting` as they were at its end.

    `first_token_s`: the mean over the requests that got their first token, None if none did.
    """

    span_s: float
    tokens_per_s: float
    prefilled_per_s: float
    cached_per_s: float
    running: int
    waiting: int
    first_token_s: float | None


class History:
    """The slots of one application, the oldest first. Event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: deque[Slot] = deque(maxlen=KEPT_SLOTS)
        self._began_s = clock()
        self._tokens = self._cached = self._starts = 0
        self._first_tokens_s = 0.0
        self._prefilled_before: int | None = None

    @property
    def slots(self) -> Sequence[Slot]:
        """What there is, at most KEPT_SLOTS of them."""
        return self._slots

    def observe(self, event: Event, age_s: float) -> None:
        """Takes from an event what is counted. `age_s`: time since the request arrived."""
        match event:
            case Started():
                self._starts += 1
                self._first_tokens_s += age_s
            case TokenEvent():
                self._tokens += 1
            case Finished():
                self._cached += event.usage.cached_tokens

    def sample(self, status: StatusLike | None) -> None:
        """Ends the slot and begins the next one. `status` None: the engine is not there."""
        now_s = self._clock()
        span_s = max(now_s - self._began_s, 1e-3)
        first_token_s = self._first_tokens_s / self._starts if self._starts else None
        self._slots.append(
            Slot(
                span_s,
                self._tokens / span_s,
                self._newly_prefilled(status) / span_s,
                self._cached / span_s,
                status.running if status else 0,
                status.waiting if status else 0,
                first_token_s,
            )
        )
        self._began_s = now_s
        self._tokens = self._cached = self._starts = 0
        self._first_tokens_s = 0.0

    def _newly_prefilled(self, status: StatusLike | None) -> int:
        """Since the last sample; nothing where there was no engine, or another one."""
        before = self._prefilled_before
        now = self._prefilled_before = status.counters.prefilled_tokens if status else None
        return 0 if before is None or now is None else max(0, now - before)


async def keep_sampling(history: History, bridge: EngineBridge, slot_s: float = SLOT_S) -> None:
    """Ends a slot every `slot_s`, until it is cancelled."""
    while True:
        await asyncio.sleep(slot_s)
        history.sample(await _status(bridge))


async def _status(bridge: EngineBridge) -> StatusLike | None:
    try:
        return await bridge.status()
    except (EngineStopped, DoorClosed):
        return None
