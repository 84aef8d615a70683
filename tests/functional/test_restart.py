"""What outlives a server: killed, corrupted or ended, and started again."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from conversation import Answer, Conversation
from pool_file import flip_a_byte_of_the_block_at
from server_process import ServerProcess
from texts import FOLLOW_UP, OPENINGS, SYSTEM

BLOCK_TOKENS = 32
POOL = ("--pool-size", "128MiB")
NAMES = ("atlas", "cook", "clio")


def misses(url: str) -> dict[str, float]:
    """Frames that the pool dropped, by reason."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    found = re.findall(r'^dovecote_pool_misses_total{reason="(\w+)"} (\S+)$', text, re.MULTILINE)
    return {reason: float(value) for reason, value in found}


def first_turns(url: str) -> dict[str, tuple[Conversation, Answer]]:
    """Each agent's conversation after its first turn."""
    agents = {name: Conversation(url, name, SYSTEM) for name in NAMES}
    return {name: (agent, agent.ask(OPENINGS[name])) for name, agent in agents.items()}


def cold_answers(
    turns: dict[str, tuple[Conversation, Answer]], cache_dir: Path, options: tuple[str, ...]
) -> dict[str, Answer]:
    """The second turns as a server gives them that has cached nothing."""
    answers = {}
    for name, (agent, _) in turns.items():
        with ServerProcess(cache_dir, (*options, "--memory-only")) as cold:
            answers[name] = agent.moved_to(cold.url).ask(FOLLOW_UP)
            assert answers[name].cached_tokens == 0
    return answers


def history_blocks(first: Answer) -> int:
    """Tokens in whole blocks of what went through the model: all but the last one sampled."""
    return (first.prompt_tokens + first.completion_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS


@pytest.mark.parametrize("codec", ("exact", "q8"))
def test_agents_go_on_after_sigkill(cache_dir: Path, codec: str) -> None:
    """After SIGKILL and a restart each agent finds its history and answers as a cold run does."""
    options = (*POOL, "--codec", codec)
    with ServerProcess(cache_dir, options) as server:
        turns = first_turns(server.url)
        server.kill()
        server.start()
        seconds = {name: turns[name][0].moved_to(server.url).ask(FOLLOW_UP) for name in NAMES}
    cold = cold_answers(turns, cache_dir, options)
    for name, second in seconds.items():
        assert second.cached_tokens >= history_blocks(turns[name][1]) > 0
        assert second.prompt_tokens == cold[name].prompt_tokens
        assert second.text == cold[name].text


def test_a_flipped_byte_is_a_miss_and_never_a_wrong_answer(cache_dir: Path) -> None:
    """A damaged frame costs its block and what follows, is counted, and changes no answer."""
    options = (*POOL, "--codec", "exact")
    with ServerProcess(cache_dir, options) as server:
        agent = Conversation(server.url, "atlas", SYSTEM)
        first = agent.ask(OPENINGS["atlas"])
        server.kill()
        (pool,) = (cache_dir / "pools").glob("*.pool")
        flip_a_byte_of_the_block_at(pool, depth=1)
        server.start()
        before = misses(server.url)
        second = agent.moved_to(server.url).ask(FOLLOW_UP)
        after = misses(server.url)
    cold = cold_answers({"atlas": (agent, first)}, cache_dir, options)["atlas"]
    assert before["checksum"] == 0
    assert after["checksum"] == 1
    assert second.cached_tokens == BLOCK_TOKENS < history_blocks(first)
    assert second.text == cold.text


def test_sigterm_ends_the_server_gracefully(cache_dir: Path) -> None:
    """SIGTERM: exit code 0, and the next server finds the pool as it was."""
    with ServerProcess(cache_dir, POOL) as server:
        agent = Conversation(server.url, "clio", SYSTEM)
        first = agent.ask(OPENINGS["clio"])
        server.terminate()
        assert server.wait() == 0
        server.start()
        second = agent.moved_to(server.url).ask(FOLLOW_UP)
    assert second.cached_tokens >= history_blocks(first) > 0


def test_files_are_private(cache_dir: Path) -> None:
    """The cache directory is 0700, and what the server writes there is 0600."""
    with ServerProcess(cache_dir, POOL):
        assert cache_dir.stat().st_mode & 0o777 == 0o700
        pools = list((cache_dir / "pools").iterdir())
        assert pools
        for path in (*pools, cache_dir / "agents.sqlite3"):
            assert path.stat().st_mode & 0o777 == 0o600
