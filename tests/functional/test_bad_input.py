"""What a client may get wrong: each gets a clear error, and the server goes on."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
from conversation import MODEL, Conversation, client_of

HELLO: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


def post(url: str, body: bytes, path: str = "/v1/chat/completions") -> tuple[int, dict[str, Any]]:
    """Status and decoded body of a POST."""
    headers = {"Content-Type": "application/json"}
    return exchange(urllib.request.Request(url + path, body, headers))


def get(url: str) -> tuple[int, dict[str, Any]]:
    """Status and decoded body of a GET."""
    return exchange(urllib.request.Request(url))


def exchange(request: urllib.request.Request) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def error_of(answer: tuple[int, dict[str, Any]], status: int) -> dict[str, Any]:
    """The error object, once status and shape are those that clients expect."""
    assert answer[0] == status, answer
    error: dict[str, Any] = answer[1]["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.fixture(autouse=True)
def unharmed(server: str) -> Any:
    """After each of these tests the server still answers."""
    yield
    assert Conversation(server, max_tokens=2).ask("Hello").completion_tokens == 2


@pytest.mark.parametrize("body", (b"{", b"", b"[]", b"nonsense", b'{"model": "\xff"}'))
def test_malformed_json_is_400(server: str, body: bytes) -> None:
    assert error_of(post(server, body), 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "param"),
    (
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 0.5}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"1": 200}}, "logit_bias"),
        ({"logit_bias": {"100000": 1}}, "logit_bias"),
        ({"top_k": 49152}, "top_k"),
        ({"presence_penalty": 3}, "presence_penalty"),
    ),
)
def test_a_wrong_field_is_400_and_named(server: str, change: dict[str, Any], param: str) -> None:
    error = error_of(post(server, json.dumps(HELLO | change).encode()), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)


def test_a_missing_field_is_400_and_named(server: str) -> None:
    error = error_of(post(server, json.dumps({"model": MODEL}).encode()), 400)
    assert "messages" in error["message"]


def test_an_unknown_model_is_404(server: str) -> None:
    with client_of(server) as client, pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(**(HELLO | {"model": "gpt-of-another-house"}))
    assert raised.value.code == "model_not_found"


def test_a_prompt_beyond_the_context_is_400(server: str) -> None:
    """The error is the one that clients know as 'context too long', and names the limit."""
    messages = [{"role": "user", "content": "word " * 9000}]
    with client_of(server) as client, pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**(HELLO | {"messages": messages}))
    assert raised.value.code == "context_length_exceeded"
    assert "maximum context length is 8192 tokens" in raised.value.message


def test_a_body_over_the_limit_is_413(server: str) -> None:
    body = json.dumps(HELLO | {"metadata": {"padding": "x" * (33 << 20)}}).encode()
    error_of(post(server, body), 413)


@pytest.mark.parametrize("path", ("/nothing", "/v1/nothing", "/v1/models/other"))
def test_an_unknown_path_is_404(server: str, path: str) -> None:
    error_of(get(server + path), 404)


def test_a_wrong_method_is_405(server: str) -> None:
    error_of(get(f"{server}/v1/chat/completions"), 405)
