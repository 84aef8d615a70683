"""Several agents at once: all are answered, each from its own history and from no other's."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conversation import BLOCK_TOKENS, Answer, Conversation
from metrics import metrics
from server_process import ServerProcess
from texts import FOLLOW_UP, OPENINGS, SYSTEM

pytestmark = pytest.mark.e2e

POOL = ("--pool-size", "128MiB", "--codec", "exact")
TEMPLATE_HEAD = 3
"""`<|im_start|>`, `system` and a newline."""


def sessions(url: str, tag: str) -> dict[str, Conversation]:
    """A conversation for each opening; their system prompts differ from the first words on."""
    return {
        name: Conversation(url, f"{tag}-{name}", f"I am {tag} {name}. {SYSTEM}")
        for name in OPENINGS
    }


def at_once(conversations: dict[str, Conversation], questions: dict[str, str]) -> dict[str, Answer]:
    with ThreadPoolExecutor(len(conversations)) as pool:
        asked = {
            name: pool.submit(each.ask, questions[name]) for name, each in conversations.items()
        }
        return {name: future.result() for name, future in asked.items()}


@contextmanager
def rows_share_steps(url: str) -> Iterator[None]:
    """Fails unless more than two rows on average were in each decode step that ran meanwhile."""
    steps, rows = "dovecote_decode_steps_total", "dovecote_decoded_rows_total"
    before = metrics(url)
    yield
    after = metrics(url)
    assert after[rows] - before[rows] > 2 * (after[steps] - before[steps])


def agent_names(url: str) -> set[str]:
    with urllib.request.urlopen(f"{url}/v1/agents") as response:
        body: Any = json.load(response)
    return {agent["id"] for agent in body["data"]}


def test_five_concurrent_sessions_complete(server: str) -> None:
    """Two turns of five agents in one batch: each is answered, resumes its history, is listed."""
    talking = sessions(server, "five")
    assert len(talking) == 5
    with rows_share_steps(server):
        first = at_once(talking, OPENINGS)
        second = at_once(talking, dict.fromkeys(OPENINGS, FOLLOW_UP))
    for name in OPENINGS:
        assert first[name].completion_tokens > 0
        assert second[name].completion_tokens > 0
        assert second[name].prompt_tokens > second[name].cached_tokens
        assert second[name].cached_tokens >= first[name].block_tokens > 0
    assert len({answer.text for answer in first.values()}) == 5
    assert {f"five-{name}" for name in OPENINGS} <= agent_names(server)


def test_caches_of_agents_are_independent(server: str) -> None:
    """Deleting one agent takes all that was its own, and nothing from the others: they resume."""
    talking = sessions(server, "independent")
    first = {name: each.ask(OPENINGS[name]) for name, each in talking.items()}
    gone, *others = talking
    request = urllib.request.Request(f"{server}/v1/agents/independent-{gone}", method="DELETE")
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["freed_blocks"] > 0
    assert f"independent-{gone}" not in agent_names(server)
    for name in others:
        assert talking[name].ask(FOLLOW_UP).cached_tokens >= first[name].block_tokens > 0
    forgotten = talking[gone].ask(FOLLOW_UP)
    assert forgotten.cached_tokens < BLOCK_TOKENS < first[gone].block_tokens


def test_nothing_leaks_between_agents(cache_dir: Path) -> None:
    """B's answers and hits are the same whether A, with another prompt, lived before it or not.

    All that they share is how the chat template begins every prompt: TEMPLATE_HEAD tokens at most.
    """

    def life_of_b(url: str) -> list[Answer]:
        b = Conversation(url, "b", f"I am B. {SYSTEM}")
        return [b.ask(OPENINGS["clio"]), b.ask(FOLLOW_UP)]

    with ServerProcess(cache_dir, (*POOL, "--memory-only")) as lonely:
        alone = life_of_b(lonely.url)
    with ServerProcess(cache_dir, (*POOL, "--memory-only")) as crowded:
        a = Conversation(crowded.url, "a", f"The secret word is heliotrope. {SYSTEM}")
        a.ask("What is the secret word?")
        a.ask(OPENINGS["clio"])
        beside = life_of_b(crowded.url)
    assert beside[0].cached_tokens <= TEMPLATE_HEAD
    assert alone[0].cached_tokens == 0
    assert replace(beside[0], cached_tokens=0) == alone[0]
    assert beside[1] == alone[1]
    assert not any("heliotrope" in answer.text.lower() for answer in beside)


def test_a_batch_answers_as_each_alone(server: str) -> None:
    """At temperature 0 the answers of five in one batch are those of solo runs."""
    alone = {name: each.ask(OPENINGS[name]) for name, each in sessions(server, "batch").items()}
    fresh = {
        name: Conversation(server, f"again-{name}", each.system)
        for name, each in sessions(server, "batch").items()
    }
    with rows_share_steps(server):
        together = at_once(fresh, OPENINGS)
    for name, answer in together.items():
        assert replace(answer, cached_tokens=0) == replace(alone[name], cached_tokens=0)
