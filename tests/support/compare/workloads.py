"""The work: agents that resume, short requests at once, a swarm, and a restart in the middle.

Prompts are the same for every server and never begin alike unless a workload is about that. Each
figure rests on answers that came whole, with status 200; their token counts are kept beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from load.client import Ask, LoadClient
from load.workers import Due, run_load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from load.records import RequestResult

    from compare.servers import Server

__all__ = ["Figures", "Size", "run_workloads"]

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each. Lines make about 20 tokens each."""

    history_lines: int = 32
    shared_lines: int = 16
    agents: int = 6
    at_once: Sequence[int] = (1, 3, 5, 8)
    answer_tokens: int = 16


@dataclass
class Figures:
    """What a server made of the work. `figures` in their units; `tokens` tell what was counted."""

    server: str
    figures: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, workload: str, results: Sequence[RequestResult]) -> bool:
        """Keeps the counts; False, and the reasons kept, if any answer did not come whole."""
        self.tokens[workload] = [asdict(each.usage) if each.usage else {} for each in results]
        failed = [str(each.error) for each in results if not each.is_answered]
        failed += ["no tokens counted" for each in results if each.is_answered and not each.usage]
        self.failures += [f"{workload}: {reason}" for reason in failed]
        return not failed


def run_workloads(server: Server, size: Size) -> Figures:
    """All of the work on a fresh server."""
    found = Figures(server.name)
    with server:
        asyncio.run(_before_restart(server, size, found))
        if server.can_restart:
            server.restart()
            asyncio.run(_after_restart(server, size, found))
    return found


async def _before_restart(server: Server, size: Size, found: Figures) -> None:
    async with LoadClient(server.url, server.model, timeout_s=1200) as client:
        await client.ask(Ask("warm-up", _user("Hello."), 4))
        await _resume(client, size, found)
        await _batch(client, size, found)
        await _swarm(client, size, found)


async def _after_restart(server: Server, size: Size, found: Figures) -> None:
    """The agent of `resume` comes back after its server was killed."""
    async with LoadClient(server.url, server.model, timeout_s=1200) as client:
        await client.ask(Ask("warm-up", _user("Hello."), 4))
        result = await client.ask(_resuming(size, 3))
    if found.note("restart", [result]):
        found.figures["first token, after SIGKILL and restart, s"] = _first_token_s(result)


async def _resume(client: LoadClient, size: Size, found: Figures) -> None:
    results = [await client.ask(_resuming(size, turn)) for turn in range(3)]
    if found.note("resume", results):
        cold, *hot = (_first_token_s(each) for each in results)
        found.figures["first token, cold, s"] = cold
        found.figures["first token, next turns, s"] = statistics.median(hot)


async def _batch(client: LoadClient, size: Size, found: Figures) -> None:
    for count in size.at_once:
        asks = [
            Ask(f"batch-{count}-{n}", _user(f"{count} {n}: tell me a story."), size.answer_tokens)
            for n in range(count)
        ]
        began = time.monotonic()
        results = await run_load([Due(0.0, _send(client, ask)) for ask in asks], workers=count)
        seconds = time.monotonic() - began
        if found.note(f"batch of {count}", results):
            tokens = sum(each.usage.completion for each in results if each.usage)
            found.figures[f"{count} at once, tokens/s"] = tokens / seconds


async def _swarm(client: LoadClient, size: Size, found: Figures) -> None:
    """Agents with one long system prompt and a question each, four at a time, two turns."""
    system = {"role": "system", "content": _lines("rule", size.shared_lines)}
    questions = [f"I am agent {n}. What is my first rule?" for n in range(size.agents)]
    asks = [
        Ask(f"swarm-{n}", [system, *_user(text)], size.answer_tokens)
        for n, text in enumerate(questions)
    ]
    began = time.monotonic()
    first = await run_load([Due(0.0, _send(client, ask)) for ask in asks], workers=4)
    asks = [
        Ask(
            ask.agent,
            [*ask.messages, _assistant(each.text), *_user("And my second?")],
            size.answer_tokens,
        )
        for ask, each in zip(asks, first, strict=True)
    ]
    second = await run_load([Due(0.0, _send(client, ask)) for ask in asks], workers=4)
    if found.note("swarm", [*first, *second]):
        name = f"swarm of {size.agents} agents, two turns, s"
        found.figures[name] = time.monotonic() - began


def _resuming(size: Size, turn: int) -> Ask:
    """One agent's growing history; its answers are given, so that all servers get the same."""
    messages = _user(_lines("item", size.history_lines) + "\nWhat is item 3?")
    for n in range(turn):
        messages += [_assistant(f"Item {n + 3} is in the list."), *_user(f"And item {n + 4}?")]
    return Ask("resume", messages, size.answer_tokens)


def _send(client: LoadClient, ask: Ask) -> Callable[[], Awaitable[RequestResult]]:
    return partial(client.ask, ask)


def _first_token_s(result: RequestResult) -> float:
    seconds = result.time_to_first_token_s
    return result.latency_s if seconds is None else seconds


def _lines(kind: str, count: int) -> str:
    return "\n".join(
        f"{kind} {n}: a jar of honey, {n * 7 % 31} pears and a map." for n in range(count)
    )


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
