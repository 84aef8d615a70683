"""A pool file that was damaged while no server ran."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from conversation import Answer, Conversation
from pool_file import flip_a_byte_of_the_block_at
from server_process import ServerProcess
from texts import FOLLOW_UP, OPENINGS, SYSTEM

BLOCK_TOKENS = 32
POOL = ("--pool-size", "128MiB")


def misses(url: str) -> dict[str, float]:
    """Frames that the pool dropped, by reason."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    found = re.findall(r'^dovecote_pool_misses_total{reason="(\w+)"} (\S+)$', text, re.MULTILINE)
    return {reason: float(value) for reason, value in found}


def history_blocks(first: Answer) -> int:
    """Tokens in whole blocks of what went through the model: all but the last one sampled."""
    return (first.prompt_tokens + first.completion_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS


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
    with ServerProcess(cache_dir, (*options, "--memory-only")) as fresh:
        cold = agent.moved_to(fresh.url).ask(FOLLOW_UP)
    assert before["checksum"] == 0
    assert after["checksum"] == 1
    assert second.cached_tokens == BLOCK_TOKENS < history_blocks(first)
    assert second.text == cold.text
