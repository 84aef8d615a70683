"""SIGTERM under load: what runs ends whole, what comes is sent elsewhere, the exit is clean."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_directory import save_random_model
from server_process import ServerProcess

STREAMS = 3
TOKENS = 1500
TIMEOUT_S = 60.0


class Stream(threading.Thread):
    """One streamed answer of `TOKENS` tokens, line by line."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.lines: list[str] = []
        self._request = chat(url, name, stream=True)

    def run(self) -> None:
        with urllib.request.urlopen(self._request, timeout=TIMEOUT_S) as response:
            for line in response:
                self.lines.append(line.decode().strip())
                self.begun.set()


def chat(url: str, name: str, *, stream: bool) -> urllib.request.Request:
    body = {
        "messages": [{"role": "user", "content": f"{name}, count."}],
        "max_tokens": TOKENS,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
        "logit_bias": {"256": -100},
    }
    headers = {"Content-Type": "application/json", "X-Agent-ID": name}
    return urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("model") / "clock", seed=3)


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    options = ("--model", str(model), "--pool-size", "64MiB", "--drain", "60")
    with ServerProcess(tmp_path / "cache", options) as process:
        yield process


@pytest.fixture
def streams(server: ServerProcess) -> list[Stream]:
    """Three streams whose first tokens have arrived."""
    running = [Stream(server.url, f"agent{number}") for number in range(STREAMS)]
    for stream in running:
        stream.start()
    for stream in running:
        assert stream.begun.wait(TIMEOUT_S)
    return running


def refusal(request: urllib.request.Request | str) -> tuple[int, str, str | None]:
    """Status, code and Retry-After of what is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=TIMEOUT_S)
    error = json.load(caught.value)["error"]
    return caught.value.code, error["code"], caught.value.headers["Retry-After"]


def test_three_streams_all_end_with_done(server: ServerProcess, streams: list[Stream]) -> None:
    """After SIGTERM readiness and new work are 503; every token still comes; the exit code is 0."""
    server.terminate()
    server.wait_for("draining")
    assert refusal(f"{server.url}/health/ready")[:2] == (503, "draining")
    status, code, retry_after = refusal(chat(server.url, "late", stream=False))
    assert (status, code) == (503, "draining")
    assert int(retry_after or 0) >= 1
    assert server.wait(TIMEOUT_S) == 0
    for stream in streams:
        stream.join(TIMEOUT_S)
        assert stream.lines[-2:] == ["data: [DONE]", ""]
        events = [json.loads(line[6:]) for line in stream.lines if line.startswith("data: {")]
        assert events[-2]["choices"][0]["finish_reason"] == "length"
        assert events[-1]["usage"]["completion_tokens"] == TOKENS
    assert server.events[-1]["event"] == "stopped"


def test_a_second_signal_forces_the_end(server: ServerProcess, streams: list[Stream]) -> None:
    """The streams are told so, and the exit code says that it was no clean end."""
    server.terminate()
    server.wait_for("draining")
    server.terminate()
    assert server.wait(TIMEOUT_S) == 1
    for stream in streams:
        stream.join(TIMEOUT_S)
        assert any('"error"' in line for line in stream.lines)
