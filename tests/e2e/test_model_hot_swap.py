"""Models swapped under a running server: real processes, small random models of one geometry."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from conversation import BLOCK_TOKENS, Conversation
from metrics import metrics
from model_directory import save_random_model
from server_process import ServerProcess

pytestmark = pytest.mark.e2e

SYSTEM = (
    "{}, you are a clock in a tower and tell the time to whoever asks, in as few words as may be."
)
POOL = ("--pool-size", "64MiB", "--codec", "exact")
HEAVY = {"hidden_size": 512, "num_hidden_layers": 4, "intermediate_size": 2048}
HEAVY_BYTES = 4 * 4 * (3 * 512 * 512 + 3 * 512 * 2048)
"""At least, in float32."""
LETTERS = {"logit_bias": {str(token): 100 for token in range(64, 90)}}
"""a to z alone: no answer ends by itself, and each comes back as the tokens that it was."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two that differ in their weights alone, a heavy one, and a directory that holds none."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: save_random_model(folder / name, seed) for seed, name in enumerate(("a", "b"))}
    found["heavy"] = save_random_model(folder / "heavy", 2, **HEAVY)
    found["bad"] = folder / "bad"
    found["bad"].mkdir()
    (found["bad"] / "config.json").write_text('{"model_type": "llama"}')
    return found


@pytest.fixture(scope="module")
def process(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    listed = ",".join(str(models[name]) for name in ("b", "bad", "heavy"))
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


def wait_for_rows(url: str, rows: int) -> None:
    """Returns once so many requests are being answered. Raises: TimeoutError."""
    give_up = time.monotonic() + 60
    while metrics(url)["dovecote_running_rows"] < rows:
        if time.monotonic() > give_up:
            raise TimeoutError(f"never were {rows} requests answered at once")
        time.sleep(0.01)


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


def test_active_agents_lose_nothing_by_a_swap_in_mid_session(server: ServerProcess) -> None:
    """Three agents in their second turn get it whole, are then served by the new model, and after
    swapping back find their history, the turn of that moment included.
    """
    talks = [
        Conversation(server.url, name, SYSTEM.format(name), 200, model="a", wishes=LETTERS)
        for name in ("Kim", "Lee", "Max")
    ]
    for talk in talks:
        talk.ask("What time is it?")
    with ThreadPoolExecutor(len(talks)) as pool:
        running = [pool.submit(talk.ask_streaming, "And now?") for talk in talks]
        wait_for_rows(server.url, len(talks))
        assert call(server.url, "/admin/swap", {"model": "b"})[1]["phase"] == "done"
        second = [each.result() for each in running]
    assert [(each.finish_reason, each.completion_tokens) for each in second] == [
        ("length", 200)
    ] * 3
    for talk in talks:
        assert replace(talk, model="b", messages=list(talk.messages)).ask("Now?").text
    assert call(server.url, "/admin/swap", {"model": "a"})[0] == 200
    for talk, before in zip(talks, second, strict=True):
        assert talk.ask("Still?").cached_tokens >= before.block_tokens > 200


def test_a_stream_ends_whole_before_the_model_goes(server: ServerProcess) -> None:
    """A client that asks for the new model meanwhile is served by its own retries."""
    talk = Conversation(server.url, max_tokens=600, model="a", wishes=LETTERS)
    with ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(talk.ask_streaming, "Count to a thousand.")
        wait_for_rows(server.url, 1)
        status, body = call(server.url, "/admin/swap", {"model": "b", "wait": False})
        assert (status, body["phase"]) == (202, "draining")
        assert call(server.url, "/health/ready")[0] == 503
        status, error = call(server.url, "/admin/swap", {"model": "b"})
        assert (status, error["error"]["code"]) == (409, "swap_underway")
        answer, _ = ask(server.url, "b", "Tom", retries=20)
        assert answer
        assert streaming.done()
    whole = streaming.result()
    assert (whole.finish_reason, whole.completion_tokens) == ("length", 600)


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
    """Ten swaps leave the process with less than one heavy model more than two swaps did."""
    sizes = []
    for turn in range(10):
        name = ("heavy", "a")[turn % 2]
        assert call(server.url, "/admin/swap", {"model": name})[0] == 200
        sizes.append(resident_bytes(server.pid))
    assert sizes[-1] - sizes[1] < HEAVY_BYTES


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
