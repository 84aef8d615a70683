from __future__ import annotations

import pytest
from load.memory import MemorySample, growth
from load.records import RequestResult, Usage
from load.report import Report, at_least, at_most
from load.summary import hit_rate, late_over_early, percentile, summarise


def result(start: float = 0.0, end: float = 1.0, **fields: object) -> RequestResult:
    usage = fields.pop("usage", Usage(10, 5, 4))
    return RequestResult("a", start, end, **{"status": 200, "usage": usage, **fields})  # type: ignore[arg-type]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, f) for f in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.01) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_summary_counts_every_attempt_once() -> None:
    results = [
        result(),
        result(end=3.0, refusals=(429, 429), first_token_s=2.0),
        result(status=429, error="429", usage=None),
        result(status=500, error="500", usage=None),
        result(status=0, error="reset", usage=None),
        result(error="the stream ended before its [DONE]", usage=None),
    ]
    figures = summarise(results)
    assert (figures.requests, figures.answered, figures.lost) == (6, 2, 2)
    assert figures.statuses == {0: 1, 200: 3, 429: 3, 500: 1}
    assert (figures.codes_4xx, figures.codes_5xx) == (3, 1)
    assert figures.seconds == 3.0
    assert figures.tokens_per_s == pytest.approx(10 / 3)
    assert figures.latency is not None
    assert (figures.latency.p50, figures.latency.longest) == (1.0, 3.0)
    assert figures.first_token is not None
    assert figures.first_token.p99 == 2.0


def test_a_run_without_answers_has_no_latency() -> None:
    figures = summarise([])
    assert (figures.requests, figures.latency, figures.hit_rate) == (0, None, None)


def test_the_hit_rate_weighs_by_tokens() -> None:
    """A long miss outweighs many short hits; what tells no cached tokens is not counted."""
    some = [result(usage=Usage(90, 1, 0)), result(usage=Usage(10, 1, 10))]
    assert hit_rate(some) == 0.1
    assert hit_rate([result(usage=Usage(10, 1, None))]) is None


def test_late_is_compared_with_early() -> None:
    slow_end = [result(n, n + (1.0 if n < 6 else 3.0)) for n in range(9)]
    assert late_over_early(slow_end) == 3.0
    assert late_over_early(slow_end[:2]) is None


def test_growth_ignores_the_first_buffers() -> None:
    def samples(*rss: int) -> list[MemorySample]:
        return [MemorySample(float(at), bytes_) for at, bytes_ in enumerate(rss)]

    assert growth(samples(10, *[100] * 19)) == 0.0
    assert growth(samples(*range(100, 120))) == pytest.approx(0.14, abs=0.02)
    assert growth(samples(*[1] * 9)) is None


def test_a_report_says_what_was_not_met() -> None:
    expectations = [
        at_most("p95", 3.0, 2.0),
        at_least("hits", 0.9, 0.8),
        at_most("growth", None, 1),
    ]
    report = Report("turns", 1.0, summarise([result()]), expectations)
    assert report.unmet == ["p95: 3 <= 2  <- not met", "growth: unknown <= 1  <- not met"]
    assert [each["holds"] for each in report.as_json()["expectations"]] == [False, True, False]
    assert "1 of 1 answered" in str(report)
