"""Seven questions whose answers say whether this build works at all."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def open_umask() -> Iterator[None]:
    """What is made meanwhile is everybody's, unless its maker closes it."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, float]]:
    """A server that never ran before, and how many seconds it took until it was ready."""
    server = ServerProcess(tmp_path_factory.mktemp("smoke") / "cache", POOL)
    started = time.monotonic()
    try:
        with open_umask():
            server.start()
        status, _ = get(f"{server.url}/health/ready")
        assert status == 200
        yield server, time.monotonic() - started
    finally:
        server.kill()


def test_the_server_is_ready_soon(running: tuple[ServerProcess, float]) -> None:
    """Under a minute from the command to a 200 of /health/ready, the conversion included."""
    assert running[1] < READY_IN_S


@pytest.mark.parametrize(
    ("path", "state"), (("/health", "ready"), ("/health/live", "alive"), ("/health/ready", "ready"))
)
def test_health_answers(running: tuple[ServerProcess, float], path: str, state: str) -> None:
    assert get(f"{running[0].url}{path}") == (200, {"status": state})


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
    """Every field that OpenAI's clients read is there and no other; the counts add up."""
    before = int(time.time())
    status, content_type, answer = post_chat(running[0].url)
    assert (status, content_type.split(";")[0]) == (200, "application/json")
    assert re.fullmatch(r"chatcmpl-\w+", answer.pop("id"))
    assert before <= answer.pop("created") <= time.time() + 1
    (choice,), usage = answer.pop("choices"), answer.pop("usage")
    assert answer == {"object": "chat.completion", "model": MODEL}
    text, reason = choice["message"].pop("content"), choice.pop("finish_reason")
    assert isinstance(text, str)
    assert reason in ("stop", "length")
    assert choice == {
        "index": 0, "message": {"role": "assistant", "refusal": None}, "logprobs": None,
    }  # fmt: skip
    details = usage.pop("prompt_tokens_details")
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    assert usage == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert details.keys() == {"cached_tokens", "cache_write_tokens"}
    assert 0 <= details["cached_tokens"] < prompt
    assert details["cache_write_tokens"] >= 0


def test_the_cache_is_private(running: tuple[ServerProcess, float]) -> None:
    """Every directory that the server made is 0700 and every file 0600, whatever the umask is."""
    cache_dir = running[0].cache_dir
    post_chat(running[0].url)
    written = [cache_dir, *cache_dir.rglob("*")]
    assert {path.suffix for path in written} >= {".pool", ".sqlite3", ".safetensors"}
    modes = {str(path): oct(path.stat().st_mode & 0o777) for path in written}
    assert modes == {str(path): "0o700" if path.is_dir() else "0o600" for path in written}


def test_sigterm_ends_it_gracefully(cache_dir: Path) -> None:
    """Exit code 0, and the next server reads the pool: the history of the agent is in it."""
    with ServerProcess(cache_dir, POOL) as server:
        agent = Conversation(server.url, "clio", "You are a patient teacher of history.")
        first = agent.ask("Who was the first president of the United States?")
        server.terminate()
        assert server.wait() == 0
        server.start()
        second = agent.moved_to(server.url).ask("When was that?")
    assert second.cached_tokens >= first.block_tokens > 0
