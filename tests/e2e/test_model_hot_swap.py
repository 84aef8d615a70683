"""Models swapped under a running server: real processes, small random models of one geometry."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
from model_directory import save_random_model
from server_process import ServerProcess

pytestmark = pytest.mark.e2e

BLOCK_TOKENS = 32
SYSTEM = (
    "{}, you are a clock in a tower and tell the time to whoever asks, in as few words as may be."
)
POOL = ("--pool-size", "64MiB", "--codec", "exact")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models that differ in their weights alone, and a directory that holds none."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: save_random_model(folder / name, seed) for seed, name in enumerate(("a", "b"))}
    found["bad"] = folder / "bad"
    found["bad"].mkdir()
    (found["bad"] / "config.json").write_text('{"model_type": "llama"}')
    return found


@pytest.fixture(scope="module")
def process(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    listed = ",".join(str(models[name]) for name in ("b", "bad"))
    options = ("--model", str(models["a"]), "--models", listed, *POOL)
    with ServerProcess(tmp_path_factory.mktemp("swaps"), options) as running:
        yield running


@pytest.fixture
def server(process: ServerProcess) -> ServerProcess:
    """The shared server, with `a` served."""
    if call(process.url, "/admin/swap")[1]["model"] != "a":
        assert call(process.url, "/admin/swap", {"model": "a"})[0] == 200
    return process


def call(url: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data)) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask(url: str, model: str, agent: str, retries: int = 0) -> tuple[str, int]:
    """The agent's answer, and how many tokens of its prompt were cached."""
    system: Any = {"role": "system", "content": SYSTEM.format(agent)}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=retries) as client:
        completion: Any = client.chat.completions.create(
            model=model,
            messages=[system, {"role": "user", "content": "What time is it?"}],
            temperature=0,
            max_tokens=16,
            extra_headers={"X-Agent-ID": agent},
        )
    details = completion.usage.prompt_tokens_details
    return completion.choices[0].message.content or "", details.cached_tokens


def test_agents_are_warm_again_after_swapping_back(server: ServerProcess) -> None:
    """The pool of a model outlives its turn: same answer, tokens cached. The other has its own."""
    first, cold = ask(server.url, "a", "Ben")
    status, body = call(server.url, "/admin/swap", {"model": "b"})
    assert (status, body["phase"], body["before"]) == (200, "done", "a")
    other, other_cached = ask(server.url, "b", "Ben")
    assert max(cold, other_cached) <= len("system: ")  # how every prompt begins
    assert other != first
    assert call(server.url, "/admin/swap", {"model": "a"})[0] == 200
    again, warm = ask(server.url, "a", "Ben")
    assert again == first
    assert warm >= 3 * BLOCK_TOKENS
    assert "Ben" in [agent["id"] for agent in call(server.url, "/v1/agents")[1]["data"]]


def test_a_stream_ends_whole_before_the_model_goes(server: ServerProcess) -> None:
    """A client that asks for the new model meanwhile is served by its own retries."""
    begun, texts = threading.Event(), list[str]()

    def stream() -> None:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            chunks = client.chat.completions.create(
                model="a",
                messages=[{"role": "user", "content": "Count to a thousand."}],
                max_tokens=600,
                stream=True,
                logit_bias={"256": -100},
            )
            for chunk in chunks:
                begun.set()
                texts.extend(choice.finish_reason or "" for choice in chunk.choices)

    streaming = threading.Thread(target=stream)
    streaming.start()
    assert begun.wait(60)
    status, body = call(server.url, "/admin/swap", {"model": "b", "wait": False})
    assert (status, body["phase"]) == (202, "draining")
    assert call(server.url, "/health/ready")[0] == 503
    status, error = call(server.url, "/admin/swap", {"model": "b"})
    assert (status, error["error"]["code"]) == (409, "swap_underway")
    answer, _ = ask(server.url, "b", "Tom", retries=20)
    streaming.join(60)
    assert answer
    assert texts[-1] == "length"


def test_a_model_that_cannot_be_loaded_changes_nothing(
    server: ServerProcess, models: dict[str, Path]
) -> None:
    """The one before is back with its pool; places that were not listed are not even tried."""
    first, _ = ask(server.url, "a", "Ada")
    status, body = call(server.url, "/admin/swap", {"model": "bad"})
    assert (status, body["error"]["code"]) == (500, "swap_rolled_back")
    assert "'a' is served again" in body["error"]["message"]
    again, warm = ask(server.url, "a", "Ada")
    assert (again, warm >= 3 * BLOCK_TOKENS) == (first, True)
    for place in ("embedded", "nobody/nothing", str(models["a"].parent / "missing")):
        status, body = call(server.url, "/admin/swap", {"model": place})
        assert (status, body["error"]["code"]) == (400, "model_unusable")


def test_a_pool_that_is_open_elsewhere_rolls_the_swap_back(
    server: ServerProcess, models: dict[str, Path]
) -> None:
    """A second server holds b's pool; the first one goes on with a."""
    with ServerProcess(server.cache_dir, ("--model", str(models["b"]), *POOL)):
        status, body = call(server.url, "/admin/swap", {"model": "b"})
    assert (status, body["error"]["code"]) == (500, "swap_rolled_back")
    assert "is already open" in body["error"]["message"]
    assert ask(server.url, "a", "Eve")[0]


def test_memory_does_not_grow_with_swaps(server: ServerProcess) -> None:
    """Twelve swaps leave the process within 40 MB of what two did; a and b together have 1 MB."""
    sizes = []
    for turn in range(12):
        assert call(server.url, "/admin/swap", {"model": "ba"[turn % 2]})[0] == 200
        sizes.append(resident_bytes(server.pid))
    assert sizes[-1] - sizes[1] < 40e6


def test_sigterm_in_mid_swap_ends_the_server_gracefully(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """Exit code 0, whatever the swap was at. Without --models any place on this machine will do."""
    with ServerProcess(tmp_path / "cache", ("--model", str(models["a"]), *POOL)) as server:
        body = {"model": str(models["b"]), "wait": False}
        assert call(server.url, "/admin/swap", body)[0] == 202
        server.terminate()
        assert server.wait() == 0


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
