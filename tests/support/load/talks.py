"""Agents that talk: each keeps its own history, as a client does, and asks one thing at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from load.client import Ask, BackOff

if TYPE_CHECKING:
    from load.client import LoadClient
    from load.records import RequestResult

__all__ = ["SYSTEM", "TOPICS", "Talk", "question", "reserving"]

SYSTEM = (
    "You are a helpful assistant who answers briefly and in plain words. "
    "You know geography, history, cooking and the sea."
)

TOPICS = (
    "the lighthouse", "bread", "the river Nile", "bees", "the moon", "a violin", "chess",
    "volcanoes", "tea", "the desert",
)  # fmt: skip


def question(number: int) -> str:
    """The n-th question of a talk; no two of the first hundred are equal."""
    forms = (
        "What is the first thing that you would tell a child about {}?",
        "Give me one short fact about {}.",
        "Where would I look for more about {}?",
        "Which mistake do people often make about {}?",
        "What has {} to do with the weather?",
    )
    return forms[number % len(forms)].format(TOPICS[number // len(forms) % len(TOPICS)])


def reserving(agent: str, number: int) -> Ask:
    """A question with a short answer, for which room for 200 tokens has to be kept."""
    content = f"What is the capital of France? I ask for the {number}. time."
    return Ask(agent, ({"role": "user", "content": content},), 200)


@dataclass
class Talk:
    """One agent's conversation. Its turns are in order, whoever asks for them at once."""

    client: LoadClient
    agent: str
    max_tokens: int = 16
    back_off: BackOff = field(default_factory=BackOff)
    system: str = SYSTEM
    turns_before_restart: int | None = None
    """After that many turns it begins anew, so that a long run stays within the context."""

    def __post_init__(self) -> None:
        self._lock = asyncio.Lock()
        self._asked = 0
        self._begin()

    async def turn(self) -> RequestResult:
        """Asks the next question and remembers the answer, if there is one."""
        async with self._lock:
            if self.turns_before_restart and self._turns >= self.turns_before_restart:
                self._begin()
            self._messages.append({"role": "user", "content": question(self._asked)})
            self._asked += 1
            ask = Ask(self.agent, tuple(self._messages), self.max_tokens)
            result = await self.client.ask(ask, self.back_off)
            if result.is_answered:
                self._turns += 1
                self._messages.append({"role": "assistant", "content": result.text})
            else:
                self._messages.pop()
            return result

    def _begin(self) -> None:
        system = f"{self.system} Your name is {self.agent}."
        self._messages = [{"role": "system", "content": system}]
        self._turns = 0
