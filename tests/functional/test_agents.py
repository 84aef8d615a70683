"""Agents as things of their own, on real servers: forked, taken elsewhere, pinned, deleted."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from conversation import BLOCK_TOKENS, Conversation
from metrics import metrics
from server_process import ServerProcess
from texts import FOLLOW_UP, OPENINGS, SYSTEM

POOL = ("--pool-size", "128MiB")


def call(url: str, method: str, path: str, body: object = None) -> Any:
    """The decoded answer of /v1/agents; raises for an error."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/agents{path}", data, method=method)
    with urllib.request.urlopen(request) as response:
        answer = response.read()
        if response.headers.get_content_type() == "application/json":
            return json.loads(answer)
        return answer


def pool_frames(url: str) -> dict[str, float]:
    """The pool's frames by state."""
    return {name: value for name, value in metrics(url).items() if name.endswith("_frames")}


def test_forks_share_everything_and_go_their_own_ways(cache_dir: Path) -> None:
    """N forks cost no frame; each first turn finds the whole history; deleting one hurts none."""
    with ServerProcess(cache_dir, POOL) as server:
        atlas = Conversation(server.url, "atlas", SYSTEM)
        atlas.ask(OPENINGS["atlas"])
        before = pool_frames(server.url)
        for n in range(5):
            call(server.url, "POST", "/atlas/fork", {"name": f"atlas {n}"})
        assert pool_frames(server.url) == before
        parent = call(server.url, "GET", "/atlas")
        assert parent["own_bytes"] == 0
        assert parent["shared_bytes"] == parent["bytes"] > 0

        def go_on(agent: str, question: str) -> int:
            conversation = atlas.moved_to(server.url)
            conversation.agent = agent
            return conversation.ask(question).cached_tokens

        assert go_on("atlas 0", FOLLOW_UP) >= parent["tokens"]
        assert call(server.url, "DELETE", "/atlas%200")["freed_blocks"] > 0
        assert go_on("atlas 1", "And which is the largest lake there?") >= parent["tokens"]
        assert go_on("atlas", FOLLOW_UP) >= parent["tokens"]
        names = {agent["id"] for agent in call(server.url, "GET", "")["data"]}
        assert names == {"atlas", "atlas 1", "atlas 2", "atlas 3", "atlas 4"}


def test_an_agent_moves_to_another_machine_and_outlives_a_restart(
    cache_dir: Path, converted_model: Path, tmp_path: Path
) -> None:
    """Exported from one server and imported into another with a fresh cache directory, it answers
    as it would have at home, from the cache; so it does after that server was killed.
    """
    with ServerProcess(cache_dir, POOL) as home:
        cook = Conversation(home.url, "cook", SYSTEM)
        cook.ask(OPENINGS["cook"])
        tokens = call(home.url, "PATCH", "/cook", {"pinned": True, "ttl_s": 86400})["tokens"]
        archive = call(home.url, "GET", "/cook/archive")
        at_home = cook.moved_to(home.url).ask(FOLLOW_UP)
    away_dir = tmp_path / "away"
    away_dir.mkdir()
    (away_dir / "models").symlink_to(converted_model)
    with ServerProcess(away_dir, POOL) as away:
        imported = call(away.url, "POST", "/archive", archive)
        assert (imported["id"], imported["cached_tokens"]) == ("cook", tokens)
        assert (imported["pinned"], imported["ttl_s"]) == (True, 86400)
        there = cook.moved_to(away.url).ask(FOLLOW_UP)
        assert there.cached_tokens >= tokens
        assert there.text == at_home.text
        away.kill()
    with ServerProcess(away_dir, POOL) as away:
        again = cook.moved_to(away.url).ask(FOLLOW_UP)
        assert again.cached_tokens >= tokens // BLOCK_TOKENS * BLOCK_TOKENS
        assert again.text == at_home.text
        agent = call(away.url, "GET", "/cook")
        assert agent["pinned"]
        assert agent["pinned_bytes"] == agent["bytes"] > 0
