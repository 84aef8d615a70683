"""The scenarios: what is sent, and what is expected of the answers.

Each takes a stage and returns a report. Lengths are those of a full run, multiplied by the stage's
scale; a scaled run sends faster, so that its figures still rest on enough requests, and where a
bound is looser then the scenario says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from load import shapes
from load.client import Ask, BackOff
from load.memory import MemorySampler, growth
from load.report import Report, at_least, at_most
from load.summary import Summary, hit_rate, late_over_early, summarise
from load.talks import TOPICS, Talk, reserving
from load.workers import Due, run_load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from load.client import LoadClient
    from load.records import RequestResult
    from load.report import Expectation

__all__ = ["SCENARIOS", "Stage"]

_PATIENT = BackOff(attempts=60, longest_s=5.0)
_HOUR_S, _HALF_HOUR_S, _TEN_MINUTES_S = 3600.0, 1800.0, 600.0
_TALK_TURNS = 10
_HABITS = (
    ("short", 8, 3.0),
    ("long", 48, 6.0),
    ("rapid", 6, 1.0),
    ("now and then", 12, 7.0),
    ("seldom", 12, 9.0),
)
"""Name, tokens an answer, seconds between turns."""


@dataclass(frozen=True)
class Stage:
    """Where a scenario plays. `pid` None: the server's memory is not watched."""

    client: LoadClient
    pid: int | None = None
    scale: float = 1.0
    most_p95_s: float = 2.0
    """What the 95th percentile of latency may be at normal load."""

    @property
    def is_scaled(self) -> bool:
        """Whether this is less than the full run."""
        return self.scale < 1

    def seconds(self, full: float, least: float) -> float:
        """That much of a full run's time, and at least so much."""
        return max(full * self.scale, least)

    def per_second(self, full: float, most: float) -> float:
        """The rate that sends as many requests as a full run would, bounded."""
        return min(full / self.scale, most) if self.is_scaled else full

    def talks(self, agents: int, prefix: str, max_tokens: int, back_off: BackOff) -> list[Talk]:
        """Conversations of that many agents."""
        names = [f"{prefix}-{n}" for n in range(agents)]
        return [self.talk(name, max_tokens, back_off) for name in names]

    def talk(self, name: str, max_tokens: int, back_off: BackOff) -> Talk:
        """A conversation that begins anew before it is too long for a small model."""
        restart = _TALK_TURNS
        return Talk(self.client, name, max_tokens, back_off, turns_before_restart=restart)


async def burst(stage: Stage) -> Report:
    """150 requests at the same moment: none is lost and none fails."""

    def ask(number: int) -> Callable[[], Awaitable[RequestResult]]:
        messages = ({"role": "user", "content": f"Say the number {number}."},)
        return lambda: stage.client.ask(Ask(f"burst-{number}", messages, 4), _PATIENT)

    due = (Due(at, ask(number)) for number, at in enumerate(shapes.at_once(150)))
    results = await run_load(due, workers=150)
    in_flight = stage.client.most_in_flight
    more = [at_least("requests in flight at once", in_flight, 150)]
    return _report("burst", stage, results, [*_all_answered(results), *more])


async def sustained(stage: Stage) -> Report:
    """More than the server can do, for 60 seconds: refusals, but no failure and no crash."""
    seconds = stage.seconds(60, 5)
    results = await _flood(stage, "sustained", seconds)
    talk = stage.talk("afterwards", 8, _PATIENT)
    more = [at_least("answered afterwards", (await talk.turn()).is_answered, 1)]
    return _report("sustained", stage, results, [*_some_answered(results), *more])


async def recovery(stage: Stage) -> Report:
    """Within 30 seconds of the end of an overload a request takes its usual time again."""
    talk = stage.talk("recovery", 8, _PATIENT)
    usual_s = min([(await talk.turn()).latency_s for _ in range(3)])
    results = await _flood(stage, "flood", 2)
    ended = max(each.started_s for each in results)
    while True:
        probe = await talk.turn()
        results.append(probe)
        recovered_s = time.monotonic() - ended
        if recovered_s > 30 or (probe.is_answered and probe.latency_s <= 2 * usual_s + 0.5):
            break
    return _report(
        "recovery", stage, results,
        [*_some_answered(results), at_most("seconds to recover", recovered_s, 30)],
        f"a turn takes {usual_s:.2f} s when nobody else asks",
    )  # fmt: skip


async def rapid(stage: Stage) -> Report:
    """Ten agents ask 50 times each, one question after the other, without an error."""
    turns = round(stage.seconds(50, 5))
    talks = stage.talks(10, "rapid", 6, BackOff())
    results = await run_load(_in_turns(talks, turns), workers=10)
    return _report("rapid", stage, results, _all_answered(results))


async def isolation(stage: Stage) -> Report:
    """Ten agents ask at once what each asked alone before, and each gets its own answer.

    Equal answers are expected of a server whose cache is exact.
    """

    def ask(topic: str, name: str) -> Callable[[], Awaitable[RequestResult]]:
        messages = ({"role": "user", "content": f"Tell me about {topic} in one sentence."},)
        return lambda: stage.client.ask(Ask(f"{name} {topic}", messages, 12), _PATIENT)

    alone = {topic: (await ask(topic, "alone")()).text for topic in TOPICS}
    rounds = round(stage.seconds(20, 3))
    asked = [topic for _ in range(rounds) for topic in TOPICS]
    results = await run_load([Due(0.0, ask(topic, "together")) for topic in asked], workers=10)
    strangers = sum(
        result.text != alone[topic] for topic, result in zip(asked, results, strict=True)
    )
    distinct = len(set(alone.values()))
    more = [at_most("answers of another's", strangers, 0), at_least("distinct", distinct, 9)]
    return _report("isolation", stage, results, [*_all_answered(results), *more])


async def normal(stage: Stage) -> Report:
    """Normal load - five agents, a turn of 16 tokens each every ten seconds - is answered soon."""
    seconds = stage.seconds(300, 20)
    talks = stage.talks(5, "normal", 16, BackOff())
    results = await run_load(_spread(talks, shapes.constant(0.5, seconds)), workers=5)
    summary = summarise(results)
    p95 = summary.latency.p95 if summary.latency else None
    more = [at_most("p95 of latency in seconds", p95, stage.most_p95_s)]
    return _report("normal", stage, results, [*_all_answered(results), *more])


async def turns(stage: Stage) -> Report:
    """Over ten turns of five agents more than four of five prompt tokens come from the cache."""
    talks = stage.talks(5, "turns", 16, _PATIENT)
    results = await run_load(_in_turns(talks, _TALK_TURNS), workers=5)
    more = [at_least("hit rate in tokens", hit_rate(results), 0.8)]
    return _report("turns", stage, results, [*_all_answered(results), *more])


async def steady(stage: Stage) -> Report:
    """Ten requests a minute over five agents, ten minutes long: all answered in time."""
    results = await _paced(stage, "steady", _TEN_MINUTES_S)
    summary = summarise(results)
    p95 = summary.latency.p95 if summary.latency else None
    more = [at_most("p95 of latency in seconds", p95, stage.most_p95_s)]
    return _report("steady", stage, results, [*_all_answered(results), *more])


async def memory(stage: Stage) -> Report:
    """Half an hour of ten requests a minute over five agents: memory grows by less than 5 %.

    In a scaled run buffers are still being made for the first time: the bound is 10 % there.
    """
    async with MemorySampler(stage.pid, stage.seconds(2, 0.2)) as sampler:
        results = await _paced(stage, "memory", _HALF_HOUR_S)
    bound = 0.10 if stage.is_scaled else 0.05
    more = [at_most("growth of memory", growth(sampler.samples), bound)]
    return _report("memory", stage, results, [*_all_answered(results), *more])


async def hour(stage: Stage) -> Report:
    """An hour of ten requests a minute over five agents: no error, and no slower at its end.

    The last third's p95 may exceed the first third's by a fifth. In a scaled run, where each rests
    on a few requests, the medians are compared, and one may be three times the other.
    """
    results = await _paced(stage, "hour", _HOUR_S)
    if stage.is_scaled:
        more = [at_most("late median over early median", late_over_early(results, 0.5), 3.0)]
    else:
        more = [at_most("late p95 over early p95", late_over_early(results), 1.2)]
    return _report("hour", stage, results, [*_all_answered(results), *more])


async def conversations(stage: Stage) -> Report:
    """Five agents of different habits: short, long, rapid fire, and two that come now and then.

    Memory may grow by a tenth; in a scaled run, where the first buffers weigh more, by three.
    """
    seconds = stage.seconds(_TEN_MINUTES_S, 15)
    due: list[Due] = []
    for name, tokens, every_s in _HABITS:
        talk = stage.talk(name, tokens, _PATIENT)
        due += [Due(at, talk.turn) for at in shapes.constant(1 / every_s, seconds)]
    due.sort(key=lambda each: each.at_s)
    async with MemorySampler(stage.pid, stage.seconds(2, 0.2)) as sampler:
        results = await run_load(due, workers=len(_HABITS) * 4)
    more = [at_least("hit rate in tokens", hit_rate(results), 0.5)]
    if stage.pid is not None:
        bound = 0.3 if stage.is_scaled else 0.1
        more.append(at_most("growth of memory", growth(sampler.samples), bound))
    return _report("conversations", stage, results, [*_all_answered(results), *more])


async def _flood(stage: Stage, name: str, seconds: float) -> list[RequestResult]:
    """Forty requests at the same moment, each second, that nobody repeats when they are refused."""

    def ask(number: int) -> Callable[[], Awaitable[RequestResult]]:
        return lambda: stage.client.ask(reserving(f"{name}-{number % 40}", number))

    times = enumerate(shapes.bursts(40, 1.0, seconds))
    return await run_load((Due(at, ask(number)) for number, at in times), workers=120)


async def _paced(stage: Stage, name: str, full_s: float) -> list[RequestResult]:
    """Ten requests a minute over five agents; a scaled run sends up to one a second."""
    seconds = stage.seconds(full_s, 15)
    talks = stage.talks(5, name, 16, _PATIENT)
    rate = stage.per_second(10 / 60, 1.0)
    return await run_load(_spread(talks, shapes.constant(rate, seconds)), workers=10)


def _spread(talks: Sequence[Talk], times: Iterable[float]) -> list[Due]:
    """The next turn of one talk after the other, at these times."""
    return [Due(at, talks[number % len(talks)].turn) for number, at in enumerate(times)]


def _in_turns(talks: Sequence[Talk], turns: int) -> list[Due]:
    """So many turns of each, as soon as it may."""
    return [Due(0.0, talk.turn) for _ in range(turns) for talk in talks]


def _no_failure(summary: Summary) -> list[Expectation]:
    return [at_most("lost", summary.lost, 0), at_most("5xx", summary.codes_5xx, 0)]


def _some_answered(results: Sequence[RequestResult]) -> list[Expectation]:
    summary = summarise(results)
    return [at_least("answered", summary.answered, 1), *_no_failure(summary)]


def _all_answered(results: Sequence[RequestResult]) -> list[Expectation]:
    """With a token each, as `usage` counts them."""
    summary = summarise(results)
    answered = at_least("answered", summary.answered, max(1, summary.requests))
    empty = sum(each.is_answered and not (each.usage and each.usage.completion) for each in results)
    return [answered, at_most("answered without a token", empty, 0), *_no_failure(summary)]


def _report(
    name: str,
    stage: Stage,
    results: Sequence[RequestResult],
    expectations: Sequence[Expectation],
    *notes: str,
) -> Report:
    errors = {result.error for result in results if result.error and result.status != 429}
    told = [f"error: {error}" for error in sorted(errors)[:5]]
    return Report(name, stage.scale, summarise(results), expectations, (*notes, *told))


SCENARIOS: dict[str, Callable[[Stage], Awaitable[Report]]] = {
    each.__name__: each
    for each in (
        burst,
        sustained,
        recovery,
        rapid,
        isolation,
        normal,
        turns,
        steady,
        memory,
        hour,
        conversations,
    )
}
