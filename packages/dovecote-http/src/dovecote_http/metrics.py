"""What /metrics tells: requests and tokens counted here, rows and pool read from the engine.

Every label has few values: a route is its pattern, a status its number, a miss one of three
reasons. Agents, models and paths are never labels. Does not know handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from dovecote_engine.request import Finished, Started

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from dovecote_engine.request import Event
    from dovecote_http.engine_like import CountersLike, PoolStatsLike, StatusLike

_FIRST_TOKEN_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""From a hot resume to a cold prompt of many thousand tokens on a CPU."""


@dataclass(frozen=True, slots=True)
class _Number:
    """One number of a snapshot. `field` is its name there."""

    field: str
    name: str
    help: str


_POOL_GAUGES = (
    _Number("frames", "frames", "All frames of the pool: leased, cached and free"),
    _Number("leased", "leased_frames", "Frames under a lease"),
    _Number("cached", "cached_frames", "Sealed frames under no lease, which can be evicted"),
    _Number("free", "free_frames", "Frames that hold nothing"),
    _Number("pinned", "pinned_frames", "Frames that are evicted last, leased or cached"),
    _Number("promised", "promised_frames", "Frames promised to leases and not yet filled"),
    _Number("frame_bytes", "frame_bytes", "Size of one frame"),
    _Number("file_bytes", "file_bytes", "Size of the pool file"),
    _Number("held_bytes", "held_bytes", "Memory of the short blocks that are not on disk yet"),
    _Number("tokens", "tokens", "Tokens in sealed frames"),
)
_POOL_COUNTERS = (
    _Number("matched_tokens", "matched_tokens", "Tokens that matches found"),
    _Number("decoded_tokens", "decoded_tokens", "Tokens restored into rows"),
    _Number("sealed_blocks", "sealed_blocks", "Blocks written"),
    _Number("shared_blocks", "shared_blocks", "Seals that found their block already there"),
    _Number("evicted_blocks", "evicted_blocks", "Blocks that made room for others"),
    _Number("superseded_blocks", "superseded_blocks", "Short blocks replaced by longer ones"),
    _Number("bytes_written", "written_bytes", "Bytes written to the pool"),
    _Number("bytes_read", "read_bytes", "Bytes read back from the pool"),
    _Number("write_errors", "write_errors", "Seals that failed"),
)
_ENGINE_COUNTERS = (
    _Number("steps", "engine_steps", "Steps of the engine"),
    _Number("prefilled_tokens", "prefilled_tokens", "Prompt tokens that were computed"),
    _Number("seal_errors", "seal_errors", "Requests whose blocks could not all be kept"),
    _Number("book_errors", "book_errors", "Requests that the agents' book could not note"),
    _Number("expired", "expired_requests", "Requests that waited too long for a row"),
    _Number("slab_losses", "slab_losses", "Times that the running batch failed as a whole"),
)
_MISS_REASONS = ("checksum", "orphan", "io")


class HttpMetrics:
    """The counters of one application, in a registry of their own. Any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("http_requests", "Requests answered", "route", "status")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of finished requests")
        self._cached = self._counter("cached_tokens", "Prompt tokens that came from the pool")
        self._completion = self._counter("completion_tokens", "Tokens generated")
        self._first_token = Histogram(
            "dovecote_time_to_first_token_seconds",
            "From the request's arrival to its first token",
            buckets=_FIRST_TOKEN_S,
            registry=self._registry,
        )

    def count_request(self, route: str, status: int) -> None:
        """Counts an answered request. `route` is a pattern, never a path that a client made up."""
        self._requests.labels(route, str(status)).inc()

    def observe(self, event: Event, age_s: float) -> None:
        """Takes from an event what is counted. `age_s`: time since the request arrived."""
        if isinstance(event, Started):
            self._first_token.observe(age_s)
        elif isinstance(event, Finished):
            self._prompt.inc(event.usage.prompt_tokens)
            self._cached.inc(event.usage.cached_tokens)
            self._completion.inc(event.usage.completion_tokens)

    def render(self, status: StatusLike | None) -> bytes:
        """The text of all metrics. `status` None: the engine is not there."""
        snapshot = CollectorRegistry()
        snapshot.register(_Snapshot(status))
        return generate_latest(self._registry) + generate_latest(snapshot)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dovecote_{name}", text, labels, registry=self._registry)


class _Snapshot(Collector):
    """The engine's and the process's numbers at one moment."""

    def __init__(self, status: StatusLike | None) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        yield _gauge("resident_bytes", "Memory of the process", psutil.Process().memory_info().rss)
        yield _gauge("engine_up", "1 while the engine runs", int(self._status is not None))
        if self._status is not None:
            yield _gauge("running_rows", "Sequences in the running batch", self._status.running)
            yield _gauge("queue_depth", "Requests waiting for a row", self._status.waiting)
            waiting_tokens = self._status.waiting_tokens
            yield _gauge("queue_tokens", "Prompt tokens of requests waiting", waiting_tokens)
            yield _gauge("slab_bytes", "Memory of the running batch", self._status.slab_bytes)
            yield _gauge("draining", "1 while the server shuts down", int(self._status.draining))
            for number in _ENGINE_COUNTERS:
                yield _counter(number.name, number.help, _read(self._status.counters, number.field))
            yield from _pool_metrics(self._status.pool)


def _pool_metrics(pool: PoolStatsLike) -> Iterable[Metric]:
    for number in _POOL_GAUGES:
        yield _gauge(f"pool_{number.name}", number.help, _read(pool, number.field))
    for number in _POOL_COUNTERS:
        yield _counter(f"pool_{number.name}", number.help, _read(pool, number.field))
    misses = CounterMetricFamily(
        "dovecote_pool_misses", "Frames that were dropped, by reason", labels=("reason",)
    )
    for reason in _MISS_REASONS:
        misses.add_metric((reason,), _read(pool, f"miss_{reason}"))
    yield misses


def _read(snapshot: CountersLike | PoolStatsLike, field: str) -> int:
    return int(getattr(snapshot, field))


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"dovecote_{name}", text, value=value)


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"dovecote_{name}", text, value=value)
