"""Options whose effect shows in a real server's log and answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess

OPTIONS = ("--host", "127.0.0.2", "--block-tokens", "16", "--no-blas", "--pin-limit", "0")
OTHERS = ("--max-body", "2KiB", "--model-alias", "gpt-5")


@pytest.fixture(scope="module")
def server(
    converted_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("options")
    (folder / "models").symlink_to(converted_model)
    options = ("--memory-only", "--pool-size", "64MiB", "--codec", "f16")
    with ServerProcess(folder, (*options, *OPTIONS, *OTHERS)) as process:
        yield process


def call(
    server: ServerProcess, path: str, body: object = None, method: str | None = None
) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/v1/{path}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def event(server: ServerProcess, name: str) -> dict[str, Any]:
    return next(each for each in server.events if each["event"] == name)


def test_it_listens_where_it_was_told_to(server: ServerProcess) -> None:
    """Another address of loopback."""
    assert event(server, "listening")["host"] == "127.0.0.2"
    assert server.url.startswith("http://127.0.0.2:")
    assert call(server, "models")[0] == 200


def test_blocks_and_codec_decide_the_size_of_a_frame(server: ServerProcess) -> None:
    """16 tokens of 30 layers with 3 heads of 64, K and V, two bytes each."""
    pool = call(server, "overview")[1]["pool"]
    assert pool["frame_bytes"] // 4096 == 16 * 30 * 3 * 64 * 2 * 2 // 4096
    assert 60 << 20 < pool["frames"] * pool["frame_bytes"] <= 64 << 20


def test_the_reference_blas_is_used_if_asked_for(server: ServerProcess) -> None:
    """The log says so."""
    assert event(server, "blas")["active"] is False


def test_bodies_are_bounded(server: ServerProcess) -> None:
    """One of three KiB is refused, a small one is not."""
    message = {"role": "user", "content": "x" * 3000}
    assert call(server, "chat/completions", {"messages": [message]})[0] == 413


def test_an_alias_is_the_served_model_and_no_other_name_is(server: ServerProcess) -> None:
    """A name that nobody gave is 404."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    assert call(server, "chat/completions", {**body, "model": "gpt-5"})[0] == 200
    assert call(server, "chat/completions", {**body, "model": "gpt-6"})[0] == 404


def test_pins_are_bounded(server: ServerProcess) -> None:
    """With no room for pins an agent that is there cannot be pinned, and the bound is told."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "user": "atlas"}
    assert call(server, "chat/completions", body)[0] == 200
    status, answer = call(server, "agents/atlas", {"pinned": True}, "PATCH")
    assert (status, answer["error"]["code"]) == (409, "pins_exhausted")


def test_threads_are_as_many_as_asked_for(converted_model: Path, tmp_path: Path) -> None:
    """OpenBLAS says how many it uses."""
    (tmp_path / "models").symlink_to(converted_model)
    options = ("--memory-only", "--pool-size", "64MiB", "--threads", "1")
    with ServerProcess(tmp_path, options) as process:
        blas = event(process, "blas")
    if not blas["active"]:
        pytest.skip(blas["reason"])
    assert blas["threads"] == 1
