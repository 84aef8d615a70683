"""What /metrics tells: requests and tokens counted here, rows and pool read from the engine.

Every label has few values: a route is its pattern, a status its number, a source, reason or outcome
one of two or three. Agents, models and paths are never labels. Does not know handlers.
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

    from dovecote_engine.request import Event, Missed
    from dovecote_http.bridge.engine_like import CountersLike, PoolStatsLike, StatusLike
    from dovecote_http.bridge.swaps import Outcome

_TIMES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""From the restore of a short chain to a cold prompt of many thousand tokens on a CPU."""


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
    _Number("decode_steps", "decode_steps", "Steps that decoded"),
    _Number("decoded_rows", "decoded_rows", "Rows of those steps: by their number, the batch size"),
    _Number("decode_seconds", "decode_seconds", "Time of those steps"),
    _Number("seal_seconds", "seal_seconds", "Time of encoding and writing blocks"),
    _Number("seal_errors", "seal_errors", "Requests whose blocks could not all be kept"),
    _Number("checkpoints", "checkpoints", "Recurrent states that were kept"),
    _Number("checkpoint_misses", "checkpoint_misses", "Recurrent states that were of no use"),
    _Number("book_errors", "book_errors", "Requests that the agents' book could not note"),
    _Number("expired", "expired_requests", "Requests that waited too long for a row"),
    _Number("slab_losses", "slab_losses", "Times that the running batch failed as a whole"),
)
_MISSED: tuple[Missed, ...] = ("new", "diverged", "evicted")
_SWAP_OUTCOMES: tuple[Outcome, ...] = ("done", "rolled_back", "failed")
_MISS_REASONS = ("checksum", "orphan", "io")


class HttpMetrics:
    """The counters of one application, in a registry of their own. Any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("http_requests", "Requests answered", "route", "status")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of finished requests")
        self._cached = self._counter("cached_tokens", "Prompt tokens that came from the pool")
        self._completion = self._counter("completion_tokens", "Tokens generated")
        self._swaps = self._counter("model_swaps", "Swaps of the served model", "outcome")
        self._hits = self._counter("hit_tokens", "Prompt tokens from the pool, by whose", "source")
        self._misses = self._counter("prompt_misses", "Prompts not found to their end", "reason")
        # All labels are there from the start, so that a first failure is a rise.
        for outcome in _SWAP_OUTCOMES:
            self._swaps.labels(outcome)
        for source in ("own", "shared"):
            self._hits.labels(source)
        for reason in _MISSED:
            self._misses.labels(reason)
        self._first_token = self._times(
            "time_to_first_token", "From the request's arrival to its first token"
        )
        self._queued = self._times("queue", "Waiting for a row")
        self._restored = self._times("restore", "Decoding cached blocks into the row")
        self._prefilled = self._times("prefill", "Computing the rest of the prompt")

    def count_request(self, route: str, status: int) -> None:
        """Counts an answered request. `route` is a pattern, never a path that a client made up."""
        self._requests.labels(route, str(status)).inc()

    def count_swap(self, outcome: Outcome) -> None:
        """Counts a swap of the served model."""
        self._swaps.labels(outcome).inc()

    def observe(self, event: Event, age_s: float) -> None:
        """Takes from an event what is counted. `age_s`: time since the request arrived."""
        if isinstance(event, Started):
            self._first_token.observe(age_s)
            self._observe_start(event)
        elif isinstance(event, Finished):
            self._prompt.inc(event.usage.prompt_tokens)
            self._cached.inc(event.usage.cached_tokens)
            self._completion.inc(event.usage.completion_tokens)

    def render(self, status: StatusLike | None, accepting: int = 1) -> bytes:
        """The text of all metrics. `status` None: the engine is not there.

        `accepting`: 1 if new requests are taken, else 0.
        """
        snapshot = CollectorRegistry()
        snapshot.register(_Snapshot(status, accepting))
        return generate_latest(self._registry) + generate_latest(snapshot)

    def _observe_start(self, event: Started) -> None:
        self._queued.observe(event.timing.queue_s)
        self._restored.observe(event.timing.restore_s)
        self._prefilled.observe(event.timing.prefill_s)
        self._hits.labels("own").inc(event.own_tokens)
        self._hits.labels("shared").inc(event.cached_tokens - event.own_tokens)
        if event.missed is not None:
            self._misses.labels(event.missed).inc()

    def _times(self, name: str, text: str) -> Histogram:
        full = f"dovecote_{name}_seconds"
        return Histogram(full, text, buckets=_TIMES_S, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dovecote_{name}", text, labels, registry=self._registry)


class _Snapshot(Collector):
    """The engine's and the process's numbers at one moment."""

    def __init__(self, status: StatusLike | None, accepting: int) -> None:
        self._status = status
        self._accepting = accepting

    def collect(self) -> Iterable[Metric]:
        yield _gauge("resident_bytes", "Memory of the process", psutil.Process().memory_info().rss)
        yield _gauge("engine_up", "1 while the engine runs", int(self._status is not None))
        yield _gauge("accepting", "1 while new requests are taken", self._accepting)
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


def pool_numbers(pool: PoolStatsLike) -> dict[str, float]:
    """All numbers of the pool, under their names in metrics without `dovecote_pool_`."""
    numbers = {n.name: _read(pool, n.field) for n in (*_POOL_GAUGES, *_POOL_COUNTERS)}
    return numbers | {f"miss_{reason}": _read(pool, f"miss_{reason}") for reason in _MISS_REASONS}


def _read(snapshot: CountersLike | PoolStatsLike, field: str) -> float:
    number: float = getattr(snapshot, field)
    return number


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"dovecote_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"dovecote_{name}", text, value=value)
