"""Seven questions whose answers say whether this build works at all."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conversation import MODEL, Conversation
from server_process import ServerProcess

pytestmark = pytest.mark.smoke

POOL = ("--pool-size", "64MiB")
READY_IN_S = 60.0


def get(url: str) -> tuple[int, Any]:
    with urllib.request.urlopen(url) as response:
        return response.status, json.load(response)


def post_chat(url: str) -> tuple[int, str, dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    data = json.dumps({**body, "temperature": 0, "max_tokens": 16}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, headers)
    with urllib.request.urlopen(request) as response:
        return response.status, response.headers["Content-Type"], json.load(response)


@pytest.fixture(scope="module")
def running(
    converted_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, float]]:
    """A server, and how many seconds it took until it was ready."""
    path = tmp_path_factory.mktemp("smoke")
    (path / "models").symlink_to(converted_model)
    started = time.monotonic()
    with ServerProcess(path, POOL) as server:
        status, _ = get(f"{server.url}/health/ready")
        assert status == 200
        yield server, time.monotonic() - started


def test_the_server_is_ready_soon(running: tuple[ServerProcess, float]) -> None:
    """From the command to a 200 of /health/ready it takes less than a minute."""
    assert running[1] < READY_IN_S


@pytest.mark.parametrize("path", ("/health", "/health/live", "/health/ready"))
def test_health_answers(running: tuple[ServerProcess, float], path: str) -> None:
    status, body = get(f"{running[0].url}{path}")
    assert status == 200
    assert isinstance(body, dict)


def test_the_model_is_loaded_and_listed(running: tuple[ServerProcess, float]) -> None:
    """The log says that it was loaded, and /v1/models lists it and no other."""
    server, _ = running
    (loaded,) = (event for event in server.events if event["event"] == "model_loaded")
    assert loaded["model"] == MODEL
    status, listed = get(f"{server.url}/v1/models")
    assert status == 200
    assert [model["id"] for model in listed["data"]] == [MODEL]


def test_one_request_completes(running: tuple[ServerProcess, float]) -> None:
    status, _, answer = post_chat(running[0].url)
    assert status == 200
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens"] > 8
    assert 0 < answer["usage"]["completion_tokens"] <= 16


def test_the_answer_has_the_exact_format(running: tuple[ServerProcess, float]) -> None:
    """Every field that OpenAI's clients read is there, with its type; the counts add up."""
    _, content_type, answer = post_chat(running[0].url)
    assert content_type.split(";")[0] == "application/json"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert abs(answer["created"] - time.time()) < 600
    assert answer["model"] == MODEL
    (choice,) = answer["choices"]
    assert (choice["index"], choice["finish_reason"]) in ((0, "stop"), (0, "length"))
    assert choice["logprobs"] is None
    assert choice["message"]["role"] == "assistant"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_the_cache_is_private(running: tuple[ServerProcess, float]) -> None:
    """The cache directory is there, 0700, and what the server wrote in it is 0600."""
    cache_dir = running[0].cache_dir
    assert cache_dir.stat().st_mode & 0o777 == 0o700
    written = [path for path in cache_dir.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".pool", ".sqlite3"}
    assert {oct(path.stat().st_mode & 0o777) for path in written} == {"0o600"}


def test_sigterm_ends_it_gracefully(cache_dir: Path) -> None:
    """Exit code 0, and the next server reads the pool: the history of the agent is in it."""
    with ServerProcess(cache_dir, POOL) as server:
        agent = Conversation(server.url, "clio", "You are a patient teacher of history.")
        first = agent.ask("Who was the first president of the United States?")
        server.terminate()
        assert server.wait() == 0
        server.start()
        second = agent.moved_to(server.url).ask("When was that?")
    history = first.prompt_tokens + first.completion_tokens - 1
    assert second.cached_tokens >= history // 32 * 32 > 0
