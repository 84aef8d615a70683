"""How often, and for how many tokens, one caller may ask: token buckets, refilled by the second.

    level <= capacity, a minute's worth; a request takes 1, and each token of prompt and answer 1

Tokens are taken when they are known, so that a request may leave its caller in debt: the next one
then waits until the debt is paid. What is refused takes nothing.

Does not know keys, addresses or HTTP.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dovecote_http.errors import ApiError, ErrorBody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["UNLIMITED", "Allowance", "RateLimits"]

_MINUTE_S = 60.0

MOST_CALLERS = 4096
"""Callers remembered. The one longest silent is forgotten first, and begins anew with full ones."""


@dataclass(slots=True)
class _Bucket:
    capacity: int
    level: float
    filled_s: float

    def refill(self, now_s: float) -> None:
        gained = (now_s - self.filled_s) * self.capacity / _MINUTE_S
        self.level = min(self.capacity, self.level + gained)
        self.filled_s = now_s

    def wait_s(self, wanted: float) -> float:
        """Seconds until `wanted` are there."""
        return max(0.0, (wanted - self.level) * _MINUTE_S / self.capacity)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller has left, by what is counted: "requests", "tokens"."""

    buckets: Mapping[str, _Bucket] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic

    def take_request(self) -> None:
        """Counts a request. Raises: ApiError (429) if there is no room for it."""
        for kind, bucket in self.buckets.items():
            bucket.refill(self.clock())
            if bucket.level < 1:
                raise self._refusal(kind, bucket)
        if "requests" in self.buckets:
            self.buckets["requests"].level -= 1

    def take_tokens(self, count: int) -> None:
        """Counts tokens, into debt if need be."""
        if "tokens" in self.buckets:
            self.buckets["tokens"].refill(self.clock())
            self.buckets["tokens"].level -= count

    def headers(self) -> dict[str, str]:
        """`x-ratelimit-*`, as OpenAI has them; empty without limits."""
        told: dict[str, str] = {}
        for kind, bucket in self.buckets.items():
            bucket.refill(self.clock())
            told[f"x-ratelimit-limit-{kind}"] = str(bucket.capacity)
            told[f"x-ratelimit-remaining-{kind}"] = str(max(0, math.floor(bucket.level)))
            told[f"x-ratelimit-reset-{kind}"] = _span(bucket.wait_s(bucket.capacity))
        return told

    def _refusal(self, kind: str, bucket: _Bucket) -> ApiError:
        message = f"Rate limit reached: {bucket.capacity} {kind} a minute. Try again later."
        body = ErrorBody(message, "rate_limit_error", None, "rate_limit_exceeded")
        return ApiError(429, body, retry_after_s=bucket.wait_s(1))


class RateLimits:
    """The allowances of all callers. `None`: no limit of that kind. Event loop only."""

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._limits = {kind: limit for kind, limit in limits.items() if limit is not None}
        self._clock = clock
        self._callers: OrderedDict[str, Allowance] = OrderedDict()

    def of(self, caller: str) -> Allowance:
        """The caller's allowance."""
        if not self._limits:
            return UNLIMITED
        allowance = self._callers.get(caller) or self._full()
        self._callers[caller] = allowance
        self._callers.move_to_end(caller)
        if len(self._callers) > MOST_CALLERS:
            self._callers.popitem(last=False)
        return allowance

    def _full(self) -> Allowance:
        now_s = self._clock()
        buckets = {kind: _Bucket(limit, limit, now_s) for kind, limit in self._limits.items()}
        return Allowance(buckets, self._clock)


UNLIMITED = Allowance()


def _span(seconds: float) -> str:
    """A time as OpenAI writes it: 120ms, 6.5s, 1m30s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 10) / 10, 60)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:g}s"
