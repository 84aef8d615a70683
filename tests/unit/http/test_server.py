"""The process: listening, draining, ending. Each test runs a real server and real signals."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = Path(__file__).with_name("serve_scripted.py")
ASK = {"messages": [{"role": "user", "content": "Top secret"}], "stream": True}


class Server:
    """A server process and the JSON lines it logs."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def logged(self, event: str) -> dict[str, Any]:
        """Reads on until the event comes."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        pytest.fail(f"{event} was never logged: {self.lines}")

    def release(self) -> None:
        """Lets the held streams go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Server]:
    """A server process, killed if the test leaves it running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, *arguments, stdin=PIPE, stdout=PIPE
    )
    try:
        yield Server(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def three_streams(
    server: Server,
) -> AsyncIterator[tuple[aiohttp.ClientSession, list[aiohttp.ClientResponse]]]:
    """Three streams of a listening server, each past its first text."""
    port = (await server.logged("listening"))["port"]
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))
        streams = []
        for _ in range(3):
            posted = session.post("/v1/chat/completions", json=ASK)
            streams.append(await stack.enter_async_context(posted))
            await streams[-1].content.readuntil(b"Hello")
        yield session, streams


async def test_the_first_signal_drains() -> None:
    """New work gets 503 while three streams run to their [DONE]; then the exit code is 0."""
    async with running("30") as server, three_streams(server) as (session, streams):
        server.process.send_signal(signal.SIGTERM)
        await server.logged("draining")
        for method, path in (("GET", "/health/ready"), ("POST", "/v1/chat/completions")):
            async with session.request(method, path, json=ASK) as refused:
                assert refused.status == 503
                assert int(refused.headers["Retry-After"]) >= 1
        server.release()
        for stream in streams:
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        assert await server.process.wait() == 0
        await server.logged("stopped")
        logged = [line for line in server.lines if line["event"] == "request"]
    assert {line["request_id"] for line in logged if line["route"] == "/chat/completions"}
    assert "secret" not in json.dumps(server.lines)


async def test_a_drain_is_bounded() -> None:
    """After drain_s the streams end with an error event, and the exit code is still 0."""
    async with running("0.1") as server, three_streams(server) as (_, streams):
        server.process.send_signal(signal.SIGTERM)
        for stream in streams:
            *_, last, empty = (await stream.read()).split(b"\n\n")
            assert empty == b""
            assert b"The server is shutting down." in last
        assert await server.process.wait() == 0


async def test_the_second_signal_forces() -> None:
    """The streams end at once with an error event, and the exit code says so."""
    async with running("600") as server, three_streams(server) as (_, streams):
        server.process.send_signal(signal.SIGINT)
        await server.logged("draining")
        server.process.send_signal(signal.SIGTERM)
        for stream in streams:
            assert b'"error"' in await stream.read()
        assert await server.process.wait() == 1


async def test_a_signal_while_loading_ends_the_process() -> None:
    """A model that takes minutes to load does not hold up the exit."""
    async with running("30", "loading") as server:
        await server.logged("loading")
        server.process.send_signal(signal.SIGTERM)
        await server.logged("stopped_while_loading")
        assert await server.process.wait() == 0
