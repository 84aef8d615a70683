"""What outlives a server, how fast it comes back, and what must never be found."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conversation import Answer, Conversation
from model_directory import save_random_model
from server_process import ServerProcess
from texts import FOLLOW_UP, OPENINGS, SYSTEM

pytestmark = pytest.mark.e2e

POOL = ("--pool-size", "128MiB")
NAMES = ("atlas", "cook", "clio")
SMOL_GEOMETRY = {
    "hidden_size": 192,
    "num_hidden_layers": 30,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 64,
    "max_position_embeddings": 16384,
}
"""K and V as SmolLM2-135M's - 30 layers of 3 heads of 64 - and little else to compute."""
LIKELIEST = {"temperature": 0, "logprobs": True, "top_logprobs": 5}


def first_turns(url: str) -> dict[str, tuple[Conversation, Answer]]:
    """Each agent's conversation after its first turn."""
    agents = {name: Conversation(url, name, SYSTEM) for name in NAMES}
    return {name: (agent, agent.ask(OPENINGS[name])) for name, agent in agents.items()}


def post(url: str, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """The answer of a chat completion, and its Server-Timing in milliseconds by name."""
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        timings = re.findall(r"(\w+);dur=([\d.]+)", response.headers["Server-Timing"])
        return json.load(response), {name: float(ms) for name, ms in timings}


def likeliest(answer: dict[str, Any]) -> dict[tuple[int, ...], float]:
    """The first token's most likely candidates, by their bytes, with their log probabilities."""
    first = answer["choices"][0]["logprobs"]["content"][0]
    return {tuple(each["bytes"]): each["logprob"] for each in first["top_logprobs"]}


@pytest.mark.parametrize("codec", ("exact", "q8"))
def test_agents_survive_sigterm_and_sigkill(cache_dir: Path, codec: str) -> None:
    """After either end each agent finds its history, block for block; `exact` goes on the same."""
    with ServerProcess(cache_dir, (*POOL, "--codec", codec)) as server:
        turns = first_turns(server.url)
        said: dict[str, set[str]] = {name: set() for name in turns}
        for end, code in ((server.terminate, 0), (server.kill, -signal.SIGKILL)):
            end()
            assert server.wait() == code
            server.start()
            for name, (agent, first) in turns.items():
                answer = agent.moved_to(server.url).ask(FOLLOW_UP)
                assert answer.cached_tokens >= first.block_tokens > 0
                said[name].add(answer.text)
    if codec == "exact":
        assert {name: len(texts) for name, texts in said.items()} == dict.fromkeys(NAMES, 1)


def test_a_resumed_agent_answers_as_a_cold_run(cache_dir: Path) -> None:
    """With `exact`: after SIGKILL the same tokens as from a server that has cached nothing."""
    options = (*POOL, "--codec", "exact")
    with ServerProcess(cache_dir, options) as server:
        turns = first_turns(server.url)
        server.kill()
        server.start()
        resumed = {name: turns[name][0].moved_to(server.url).ask(FOLLOW_UP) for name in NAMES}
    for name, (agent, first) in turns.items():
        with ServerProcess(cache_dir, (*options, "--memory-only")) as fresh:
            cold = agent.moved_to(fresh.url).ask(FOLLOW_UP)
        assert cold.cached_tokens == 0
        assert resumed[name].cached_tokens >= first.block_tokens > 0
        assert replace(resumed[name], cached_tokens=0) == cold


def test_8k_tokens_are_restored_in_half_a_second(tmp_path: Path) -> None:
    """After SIGKILL, by the server's own `Server-Timing`, in SMOL_GEOMETRY with the codec q8.

    What is restored is what was there: the likeliest next tokens are those of the cold run.
    """
    model = save_random_model(tmp_path / "wide", 1, **SMOL_GEOMETRY)
    options = ("--model", str(model), "--pool-size", "256MiB", "--codec", "q8")
    text = "".join(f"{n:05d} " for n in range(1400))  # a token a character
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, **LIKELIEST}
    with ServerProcess(tmp_path / "cache", options) as server:
        cold, _ = post(server.url, body)
        server.kill()
        server.start()
        warm, timings = post(server.url, body)
    assert cold["usage"]["prompt_tokens"] > 8192
    assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] >= 8192
    assert 0 < timings["restore"] < 500
    assert likeliest(warm) == pytest.approx(likeliest(cold), abs=0.02)


def test_models_of_equal_shape_never_share_a_block(tmp_path: Path) -> None:
    """One cache directory, two models of one shape: each answers cold, and as it does alone.

    The log probability of the first token tells the models apart, and what they computed.
    """

    def answer(cache: str, seed: int) -> dict[str, Any]:
        options = ("--model", str(models[seed]), "--pool-size", "16MiB", "--codec", "exact")
        with ServerProcess(tmp_path / cache, options) as server:
            body = {"messages": [{"role": "user", "content": "One prompt for both. " * 8}]}
            return post(server.url, {**body, **LIKELIEST, "max_tokens": 4})[0]

    models = {
        seed: save_random_model(tmp_path / f"seed{seed}" / "same-name", seed) for seed in (1, 2)
    }
    alone = answer("alone", 2)
    first, other = answer("shared", 1), answer("shared", 2)
    again = answer("shared", 1)
    assert first["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"] > 64
    assert other["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert other["choices"] == alone["choices"] != first["choices"] == again["choices"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 64
