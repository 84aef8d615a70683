"""Every limit that an operator sets has its effect on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from conversation import MODEL, client_of
from server_process import ServerProcess

OPTIONS = (
    "--memory-only",
    *("--pool-size", "256MiB"),
    *("--max-rows", "1"),
    *("--max-waiting-tokens", "500"),
    *("--queue-timeout", "1"),
    *("--request-timeout", "4"),
    *("--slab-size", "64MiB"),
)
LONG = {"max_tokens": 1000, "extra_body": {"logit_bias": {"2": -100, "0": -100}}}


@pytest.fixture(scope="module")
def client(
    converted_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    path = tmp_path_factory.mktemp("limits")
    (path / "models").symlink_to(converted_model)
    with ServerProcess(path, OPTIONS) as process, client_of(process.url) as client:
        yield client


def _create(client: openai.OpenAI, text: str, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=MODEL, messages=messages, **fields)


def _running(client: openai.OpenAI) -> Any:
    """A stream that has its first token and will not end by itself for some time."""
    stream = _create(client, "Tell me a long story.", stream=True, **LONG)
    next(stream)
    return stream


def test_a_request_that_takes_too_long_ends(client: openai.OpenAI) -> None:
    """--request-timeout: its stream ends with an error after that time."""
    with pytest.raises(openai.APIError, match="longer than 4 seconds"):
        list(_running(client))


def test_a_request_that_waits_too_long_is_told_when_to_come_back(client: openai.OpenAI) -> None:
    """--queue-timeout: 429 with Retry-After, although the queue was not full."""
    stream = _running(client)
    with pytest.raises(openai.RateLimitError) as raised:
        _create(client, "Hello", max_tokens=1)
    stream.close()
    assert raised.value.code == "queue_timeout"
    assert 1 <= int(raised.value.response.headers["Retry-After"]) <= 60


def test_prompt_tokens_that_wait_are_bounded(client: openai.OpenAI) -> None:
    """--max-waiting-tokens: of two prompts of 400 tokens only one may wait."""
    stream = _running(client)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(_create, client, f"{n} " + "one " * 400, max_tokens=1) for n in "ab"]
        errors = [each.exception() for each in waiting]
    stream.close()
    codes = [error.code for error in errors if isinstance(error, openai.RateLimitError)]
    assert sorted(map(str, codes)) == ["overloaded", "queue_timeout"]


def test_the_slab_bounds_the_context(client: openai.OpenAI) -> None:
    """--slab-size: 64 MiB hold 1,280 tokens of SmolLM2 in float32."""
    with pytest.raises(openai.BadRequestError, match="1280 tokens"):
        _create(client, "Hello", max_tokens=1400)
