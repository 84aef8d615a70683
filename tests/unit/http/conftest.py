"""A running service over a scripted engine, on a real socket."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
import structlog
from aiohttp import web
from blockbuster import blockbuster_ctx
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

sys.path.insert(0, str(Path(__file__).parents[3]))

from dovecote_http import Access, EngineBridge, HttpSettings, make_app
from dovecote_http.access.listener import Listener
from tests.unit.http.scripted_engine import Script, ScriptedEngine

if TYPE_CHECKING:
    from dovecote_http.bridge.swaps import Catalogue

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


@dataclass(frozen=True, slots=True)
class Service:
    """A running service and its clients."""

    engine: ScriptedEngine
    bridge: EngineBridge
    port: int
    session: aiohttp.ClientSession
    openai: AsyncOpenAI
    engines: list[ScriptedEngine]
    app: web.Application
    listener: Listener

    def post(self, body: object = None, **headers: str) -> aiohttp.client._RequestContextManager:
        """A chat completion; `headers` have underscores for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(
            "/v1/chat/completions", json=HELLO if body is None else body, headers=named
        )

    async def until(self, claim: Callable[[], object]) -> None:
        """Returns once the claim about the engine holds."""
        await asyncio.to_thread(self.engine.wait_until, claim)

    async def exchange(self, sent: bytes) -> bytes:
        """All bytes that answer `sent`, up to the connection's end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        return received


Start = Callable[..., Awaitable[Service]]


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage() -> None:
    """Every engine that ends collects garbage: what the clients' packages and the modules before
    hold is none, and would be looked through hundreds of times.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _plain_tracebacks() -> None:
    """Coloured ones with variables take half a second each, in the thread that is to end."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture(scope="module", autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Fails whatever blocks the event loop from the service's own code. To patch all the calls that
    might takes longer than most tests.
    """
    with blockbuster_ctx("dovecote_http"):
        yield


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts services that end with the test."""
    async with AsyncExitStack() as stack:

        async def start_one(
            script: Script | None = None,
            settings: HttpSettings | None = None,
            catalogue: Catalogue | None = None,
            access: Access | None = None,
        ) -> Service:
            made: list[ScriptedEngine] = []

            def factory() -> ScriptedEngine:
                made.append(ScriptedEngine(script))
                return made[-1]

            bridge = EngineBridge(factory)
            app = make_app(bridge, settings or HttpSettings(), access, catalogue)
            listener = Listener(app)
            stack.push_async_callback(listener.close)
            await listener.prepare()
            port = await listener.open("127.0.0.1", 0)
            url = f"http://127.0.0.1:{port}"
            session = await stack.enter_async_context(aiohttp.ClientSession(url))
            # Certificates that no test needs take longer to read than a request takes.
            transport = DefaultAsyncHttpxClient(base_url=f"{url}/v1", verify=False)
            client = await stack.enter_async_context(
                AsyncOpenAI(
                    base_url=f"{url}/v1",
                    api_key="any",
                    max_retries=0,
                    timeout=20,
                    http_client=transport,
                )
            )
            return Service(made[0], bridge, port, session, client, made, app, listener)

        yield start_one


@pytest.fixture
async def service(start: Start) -> Service:
    """A service whose engine says "Hello world"."""
    return await start()
