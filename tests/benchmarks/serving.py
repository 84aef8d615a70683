"""What HTTP adds to a token: events to the event loop, JSON, server-sent events, the socket."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from logging import ERROR
from typing import Any

from . import engines
from .engines import engine_of, first_token_seconds, pool_of, request_of, words

TOKENS = 512
ROUNDS = 5


class Http:
    """Streaming 512 tokens of a model so small that most of the time is the service's.

    Processor time of the whole process, over the same tokens from the engine alone, so that what
    other programs take does not show. The client reads bytes and looks for the end, no more.
    """

    unit = "us"
    timeout = 300

    def setup(self) -> None:
        self.model = engines.SMALL_MODEL
        engines.loaded(self.model)  # before the service's import of MLX
        with engines.skipped_where_absent():
            import structlog

            from dovecote_http import EngineBridge, HttpSettings, make_app

            bridge = EngineBridge(lambda: engine_of(self.model, pool_of(self.model, 256)))
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(ERROR))
            self.app = make_app(bridge, HttpSettings())
        self.engine = engine_of(self.model, pool_of(self.model, 256))
        self.alone()

    def teardown(self) -> None:
        import structlog

        structlog.reset_defaults()  # the process may go on to what reads warnings

    def track_microseconds_a_token(self) -> float:
        """At 20 tokens a second of 8 rows each, 100 us a token are 1.6 % of a core."""
        served, alone = asyncio.run(self.measure())
        return 1e6 * (statistics.median(served) - statistics.median(alone)) / TOKENS

    def alone(self) -> float:
        """The same tokens from an engine without a service."""
        started = time.process_time()
        first_token_seconds(self.engine, request_of(words(self.model, 16, 1), TOKENS))
        return time.process_time() - started

    async def measure(self) -> tuple[list[float], list[float]]:
        from aiohttp import web

        runner = web.AppRunner(self.app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            await self.streamed(port)
            rounds = [(await self.streamed(port), self.alone()) for _ in range(ROUNDS)]
        finally:
            await runner.cleanup()
        return [one for one, _ in rounds], [other for _, other in rounds]

    async def streamed(self, port: int) -> float:
        """One streamed request over a connection of its own. Raises: RuntimeError."""
        started = time.process_time()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(chat_request(self.model))
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read()
        writer.close()
        seconds = time.process_time() - started
        if b" 200 " not in head or body.count(b"data: ") < TOKENS:
            raise RuntimeError(f"{head.decode()}\n{body[:2000].decode()}")
        return seconds


def chat_request(model: Any) -> bytes:
    """The bytes of a streaming chat completion."""
    content = " ".join(str(token) for token in words(model, 16, 1))
    body = json.dumps(
        {
            "model": "made-up",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "stream": True,
        }
    ).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Connection: close",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body
