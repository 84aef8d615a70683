"""Figures of a run: percentiles, throughput, statuses, hits, and how late compares with early."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from load.records import RequestResult

__all__ = ["Percentiles", "Summary", "hit_rate", "late_over_early", "percentile", "summarise"]


def percentile(values: Sequence[float], fraction: float) -> float:
    """The least value that at least that fraction of the values does not exceed (nearest rank).

    Raises: ValueError for no values.
    """
    if not values:
        raise ValueError("no values have no percentile")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds."""

    p50: float
    p95: float
    p99: float
    longest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles | None:
        """None for no values."""
        if not values:
            return None
        p50, p95, p99 = (percentile(values, fraction) for fraction in (0.5, 0.95, 0.99))
        return cls(p50, p95, p99, max(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in figures. `statuses` counts every attempt; `codes_4xx` and `codes_5xx` are of them.

    `lost`: requests without any response, or with a stream that broke off.
    """

    requests: int
    answered: int
    lost: int
    statuses: dict[int, int]
    codes_4xx: int
    codes_5xx: int
    seconds: float
    requests_per_s: float
    tokens_per_s: float
    latency: Percentiles | None
    first_token: Percentiles | None
    hit_rate: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def summarise(results: Sequence[RequestResult]) -> Summary:
    """The figures of these results."""
    answered = [result for result in results if result.is_answered]
    statuses = Counter(status for each in results for status in (*each.refusals, each.status))
    first = min((each.started_s for each in results), default=0.0)
    seconds = max((each.ended_s for each in results), default=0.0) - first
    tokens = sum(each.usage.completion for each in answered if each.usage)
    to_first = [each.time_to_first_token_s for each in answered]
    return Summary(
        requests=len(results),
        answered=len(answered),
        lost=sum(not each.is_answered and each.status in (0, 200) for each in results),
        statuses=dict(sorted(statuses.items())),
        codes_4xx=sum(count for status, count in statuses.items() if 400 <= status < 500),
        codes_5xx=sum(count for status, count in statuses.items() if status >= 500),
        seconds=seconds,
        requests_per_s=len(answered) / seconds if seconds else 0.0,
        tokens_per_s=tokens / seconds if seconds else 0.0,
        latency=Percentiles.of([each.latency_s for each in answered]),
        first_token=Percentiles.of([each for each in to_first if each is not None]),
        hit_rate=hit_rate(results),
    )


def hit_rate(results: Sequence[RequestResult]) -> float | None:
    """Of all prompt tokens the fraction that came from the cache; None if the server tells none."""
    told = [each.usage for each in results if each.usage and each.usage.cached is not None]
    prompt = sum(usage.prompt for usage in told)
    return sum(usage.cached or 0 for usage in told) / prompt if prompt else None


def late_over_early(results: Sequence[RequestResult], fraction: float = 0.95) -> float | None:
    """That percentile of the last third's latencies over that of the first third's."""
    answered = sorted((r for r in results if r.is_answered), key=lambda r: r.started_s)
    third = len(answered) // 3
    if not third:
        return None
    early = percentile([each.latency_s for each in answered[:third]], fraction)
    late = percentile([each.latency_s for each in answered[-third:]], fraction)
    return late / early
