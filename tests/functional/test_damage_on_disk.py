"""A pool file that was damaged while no server ran."""

from __future__ import annotations

from pathlib import Path

from conversation import BLOCK_TOKENS, Conversation
from metrics import metrics
from pool_file import flip_a_byte_of_the_block_at
from server_process import ServerProcess
from texts import FOLLOW_UP, OPENINGS, SYSTEM

POOL = ("--pool-size", "128MiB")
MISSES = 'dovecote_pool_misses_total{reason="checksum"}'


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
        before = metrics(server.url)
        second = agent.moved_to(server.url).ask(FOLLOW_UP)
        after = metrics(server.url)
    with ServerProcess(cache_dir, (*options, "--memory-only")) as fresh:
        cold = agent.moved_to(fresh.url).ask(FOLLOW_UP)
    assert (before[MISSES], after[MISSES]) == (0, 1)
    assert second.cached_tokens == BLOCK_TOKENS < first.block_tokens
    assert second.text == cold.text
