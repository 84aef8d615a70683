"""The pool of a running server, read and checked on demand."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from model_directory import save_random_model
from pool_file import flip_a_byte_of_the_block_at
from server_process import ServerProcess


def post(url: str, path: str, body: object = None) -> dict[str, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data)) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def test_a_damaged_block_is_found_dropped_and_computed_anew(tmp_path: Path) -> None:
    """What hangs on it goes too; after that the pool is sound, and the answer is what it was."""
    model = save_random_model(tmp_path / "clock", seed=3)
    chat = {"messages": [{"role": "user", "content": "tick tock " * 20}], "temperature": 0}
    options = ("--model", str(model), "--pool-size", "16MiB", "--codec", "exact")
    with ServerProcess(tmp_path / "cache", options) as server:
        first = post(server.url, "/v1/chat/completions", chat | {"max_tokens": 8})
        sound = post(server.url, "/admin/pool/verify")
        (pool,) = (tmp_path / "cache/pools").glob("*.pool")
        flip_a_byte_of_the_block_at(pool, depth=2)
        damaged = post(server.url, "/admin/pool/verify")
        again = post(server.url, "/admin/pool/verify")
        second = post(server.url, "/v1/chat/completions", chat | {"max_tokens": 8})
    assert sound["sound"]
    assert sound["checked_frames"] >= 6
    assert (damaged["sound"], damaged["damaged_frames"]) == (False, 1)
    assert again["sound"]
    assert again["checked_frames"] == 2
    assert second["choices"] == first["choices"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 64
