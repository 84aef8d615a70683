"""Streams as they cross the wire: read from the socket, byte for byte."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from conversation import MODEL, Conversation, client_of
from server_process import ServerProcess
from texts import OPENINGS, SYSTEM

pytestmark = pytest.mark.e2e

CHUNK = frozenset({"id", "object", "created", "model", "choices"})
"""The fields of a chunk. `usage` is not one of them unless it is asked for."""
NO_END = {"logit_bias": {"2": -100, "0": -100}}
"""Bans the tokens that would end the answer."""


@dataclass(frozen=True)
class Wire:
    """A response's head, its body, and when each part came, in seconds since the request."""

    head: str
    body: bytes
    arrivals: tuple[float, ...]


def read_stream(url: str, body: dict[str, Any]) -> Wire:
    """POSTs over a plain socket, HTTP/1.0, so that the body is not cut into HTTP's own chunks."""
    address = urlsplit(url)
    data = json.dumps({"model": MODEL, "stream": True, "temperature": 0, **body}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.0\r\nHost: {address.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    received, arrivals = b"", []
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        sent = time.monotonic()
        connection.sendall(head.encode() + data)
        while part := connection.recv(65536):
            received += part
            arrivals.append(time.monotonic() - sent)
    answered, _, rest = received.partition(b"\r\n\r\n")
    return Wire(answered.decode(), rest, tuple(arrivals))


def data_of(wire: Wire) -> list[str]:
    """The data of each event, comments left out; anything else in the stream fails."""
    events = wire.body.decode().split("\n\n")
    assert events.pop() == "", "the stream does not end with an empty line"
    shown = [event for event in events if not event.startswith(":")]
    assert all(re.fullmatch(r"data: [^\r\n]+", event) for event in shown)
    return [event.removeprefix("data: ") for event in shown]


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_framing_is_exact(server: str) -> None:
    """`data: <one line of JSON>`, an empty line; role, pieces, finish; one id and time for all."""
    wire = read_stream(server, {"messages": message("Say hello."), "max_tokens": 6})
    assert wire.head.startswith(("HTTP/1.0 200", "HTTP/1.1 200"))
    headers = {
        line.split(": ")[0].lower(): line.split(": ")[1] for line in wire.head.split("\r\n")[1:]
    }
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    *payloads, done = data_of(wire)
    assert done == "[DONE]"
    chunks = [json.loads(payload) for payload in payloads]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {MODEL}
    assert {frozenset(chunk) for chunk in chunks} == {CHUNK}
    (choices,) = zip(*(chunk["choices"] for chunk in chunks), strict=True)
    assert {choice["index"] for choice in choices} == {0}
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(choice["delta"]) == {"content"} for choice in choices[1:-1])
    assert all(choice["delta"]["content"] for choice in choices[1:-1])
    assert choices[-1]["delta"] == {}
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] in ("stop", "length")


def test_deltas_arrive_progressively(server: str) -> None:
    """Of 48 tokens most come by themselves, and half of them well before the last one."""
    wire = read_stream(server, {"messages": message("Count slowly."), "max_tokens": 48, **NO_END})
    assert len(data_of(wire)) >= 40
    assert len(wire.arrivals) >= 24
    middle, last = wire.arrivals[len(wire.arrivals) // 2], wire.arrivals[-1]
    assert middle < 0.8 * last


def test_done_ends_it(server: str) -> None:
    """[DONE] is there once, nothing follows it, and the connection closes."""
    asked = {"messages": message("Say hello."), "max_tokens": 3}
    wire = read_stream(server, {**asked, "stream_options": {"include_usage": True}})
    payloads = data_of(wire)
    assert payloads.count("[DONE]") == 1
    assert wire.body.endswith(b"data: [DONE]\n\n")
    last = json.loads(payloads[-2])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3


def test_an_error_inside_a_stream_reaches_the_client(cache_dir: Path) -> None:
    """A stream that takes too long ends with an error event, which `openai` raises."""
    options = ("--pool-size", "64MiB", "--memory-only", "--request-timeout", "2")
    with ServerProcess(cache_dir, options) as slow, client_of(slow.url) as client:
        stream: Any = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a long story."}],
            max_tokens=1000,
            stream=True,
            extra_body=NO_END,
        )
        assert stream.response.status_code == 200
        assert next(stream).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError, match="longer than 2 seconds"):
            list(stream)


def test_streamed_text_is_the_text(server: str) -> None:
    """At temperature 0 the streamed answer is the other one, piece by piece."""
    plain = Conversation(server, system=SYSTEM).ask(OPENINGS["clio"])
    streamed = Conversation(server, system=SYSTEM).ask_streaming(OPENINGS["clio"])
    assert streamed.text == plain.text
    assert streamed.finish_reason == plain.finish_reason
    assert streamed.prompt_tokens == plain.prompt_tokens
    assert streamed.completion_tokens == plain.completion_tokens
