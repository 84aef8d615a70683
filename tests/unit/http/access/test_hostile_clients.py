"""What a client may do to the listener: each gets a clear error, and the others are served."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from dovecote_http import HttpSettings
from dovecote_http.keys import BODY_ROOM
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.http.conftest import Service, Start

HASTY = HttpSettings(receive_timeout_s=0.3, send_timeout_s=0.3, max_body_bytes=1 << 16)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came over the socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> object:
        """The error's code, once its shape is the one that clients expect."""
        error = json.loads(self.body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert self.headers["x-request-id"]
        return error["code"]


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> Answer:
        """The next response of a known length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.strip().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in rest)
        }
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(line.split(" ")[1]), headers, body)

    async def ask(self, sent: bytes) -> Answer:
        self.writer.write(sent)
        return await self.answer()


@asynccontextmanager
async def wire(service: Service) -> AsyncIterator[Wire]:
    """A connection to the service, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def post(body: bytes, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers]
    if not any(each.lower().startswith(("content-length", "transfer-")) for each in headers):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


async def assert_unharmed(service: Service) -> None:
    """Somebody else is answered, and no body is held any longer."""
    async with service.post() as response:
        assert response.status == 200
    room = service.app[BODY_ROOM]
    assert room.free_bytes == room.capacity_bytes


@pytest.mark.parametrize("begun", (b"", b"G", b"POST /v1/chat/completions HTTP/1.1\r\nX-A: "))
async def test_a_head_that_does_not_come_is_408(start: Start, begun: bytes) -> None:
    service = await start(settings=HASTY)
    async with wire(service) as slow:
        answer = await slow.ask(begun)
        assert (answer.status, answer.code) == (408, "receive_timeout")
        assert await slow.reader.read() == b""
    await assert_unharmed(service)


async def test_a_head_that_trickles_gains_no_time_by_it(start: Start) -> None:
    service = await start(settings=HASTY)
    async with wire(service) as slow:
        slow.writer.write(b"GET / HTTP/1.1\r\nX-A: ")
        answered = asyncio.create_task(slow.answer())
        while not answered.done():
            slow.writer.write(b"x")
            await asyncio.wait((answered,), timeout=0.01)
        assert answered.result().status == 408


@pytest.mark.parametrize("headers", (("Content-Length: 100",), ("Transfer-Encoding: chunked",)))
async def test_a_body_that_does_not_come_is_408(start: Start, headers: tuple[str, ...]) -> None:
    """Others are answered meanwhile."""
    service = await start(settings=HASTY)
    async with wire(service) as slow:
        slow.writer.write(post(b'4\r\n{"me', *headers))
        await assert_unharmed_soon(service)
        answer = await slow.answer()
        assert (answer.status, answer.code) == (408, "receive_timeout")
    await assert_unharmed(service)


async def assert_unharmed_soon(service: Service) -> None:
    async with service.post() as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "head",
    (
        "X-A: " + "x" * 9000,
        "\r\n".join(f"X-{n}: x" for n in range(200)),
        "X-A: " + "x" * (1 << 20),
        "X-A: a\rb",
        "X-A: a\x00b",
        "X-A : b",
        " X-A: b",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: -5",
        "Content-Length: 5_0",
        "Transfer-Encoding: chunked, identity",
    ),
)
async def test_a_head_that_cannot_be_read_is_400(service: Service, head: str) -> None:
    """In the shape of every error, before its end, and the connection is closed."""
    async with wire(service) as hostile:
        answer = await hostile.ask(f"GET / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode("latin-1"))
        assert (answer.status, answer.code) == (400, "malformed_http")
        assert "xxxx" not in answer.body.decode()
    await assert_unharmed(service)


async def test_a_long_body_is_413_before_it_is_read(start: Start) -> None:
    service = await start(settings=HASTY)
    async with wire(service) as hostile:
        answer = await hostile.ask(post(b"", "Content-Length: 99999999999"))
        assert (answer.status, answer.code) == (413, "request_too_large")
    await assert_unharmed(service)


async def test_a_long_body_of_no_known_length_is_413(start: Start) -> None:
    """In chunks without end, and compressed to next to nothing."""
    service = await start(settings=HASTY)
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    async with wire(service) as hostile:
        answer = await hostile.ask(post(chunk * 40, "Transfer-Encoding: chunked"))
        assert answer.status == 413
    bomb = gzip.compress(b" " * (64 << 20))
    async with wire(service) as hostile:
        assert (await hostile.ask(post(bomb, "Content-Encoding: gzip"))).status == 413
    await assert_unharmed(service)


async def test_bodies_take_a_bounded_amount_of_memory_together(start: Start) -> None:
    """Once it is used up further ones are 429; it is back when those go away."""
    service = await start(settings=HttpSettings(max_body_bytes=1 << 16))
    part = b" " * 0xFF00
    async with AsyncExitStack() as stack:
        for _ in range(4):
            greedy = await stack.enter_async_context(wire(service))
            greedy.writer.write(post(part, "Content-Length: 65536"))
        room = service.app[BODY_ROOM]
        while room.free_bytes > room.capacity_bytes - 4 * len(part):
            await asyncio.sleep(0)
        one_more = await stack.enter_async_context(wire(service))
        answer = await one_more.ask(post(part))
        assert (answer.status, answer.code) == (429, "overloaded")
        assert answer.headers["retry-after"] == "1"
        await assert_unharmed_soon(service)
    while room.free_bytes < room.capacity_bytes:
        await asyncio.sleep(0)
    await assert_unharmed(service)


async def test_ten_thousand_messages_are_answered(service: Service) -> None:
    async with service.post({"messages": CHAT["messages"] * 10_000}) as response:
        assert response.status == 200
    assert len(service.engine.requests[0].prompt) == 20_000


@pytest.mark.parametrize(
    "body",
    (
        b"[" * 200_000,
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"response_format": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
        b'{"messages": [{"role": "user", "content": "\x00"}]}',
        b'{"messages": [{"role": "user", "content": "\x1b[2J"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 100_000 + b"}",
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
    ),
)
async def test_what_is_no_json_of_ours_is_400(service: Service, body: bytes) -> None:
    """Nested beyond reason, invalid UTF-8, raw control characters, numbers without bound."""
    async with wire(service) as hostile:
        assert (await hostile.ask(post(body))).status == 400
    await assert_unharmed(service)


async def test_escaped_control_characters_are_text(service: Service) -> None:
    """NUL, an escape sequence and a lone surrogate reach the tokenizer or are 400, never more."""
    for content, status in (("\\u0000", 200), ("\\u001b[2J", 200), ("\\ud800", 400)):
        body = f'{{"messages": [{{"role": "user", "content": "{content}"}}]}}'.encode()
        async with wire(service) as hostile:
            assert (await hostile.ask(post(body))).status == status


@pytest.mark.parametrize(
    "name", ("../../etc/passwd", "..", "/", "C:\\x", "%2e%2e", "~root", "a" * 256)
)
async def test_a_name_like_a_path_is_a_name(service: Service, name: str) -> None:
    async with service.post(X_Agent_ID=name) as response:
        assert response.status == 200
    assert service.engine.requests[0].agent == name


@pytest.mark.parametrize(
    "path",
    (
        "/v1/agents/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/agents/../../../etc/passwd",
        "/v1/agents/%2e%2e/%2e%2e/etc/passwd",
        "/v1/agents/x%0d%0aX-Evil:%201",
        "/v1/agents/x%00",
        "/v1/agents/%ff%fe",
        "/v1/models/x%0d%0aX-Evil:%201",
        "/web/..%2f..%2fapp.py",
        "/web/%2e%2e%2fapp.py",
        "//etc/passwd",
        "http://elsewhere/etc/passwd",
        "/" + "a/" * 4000,
    ),
)
async def test_a_path_leads_nowhere_else(service: Service, path: str) -> None:
    """404 in the shape of every error; nothing of the path comes back as a header."""
    async with wire(service) as hostile:
        answer = await hostile.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert answer.status == 404
        assert answer.code
        assert "x-evil" not in answer.headers


@pytest.mark.parametrize("name", ("a\r\n X-Evil: 1", "a\nb", "é" * 5, "x" * 129, "a b", "<script>"))
async def test_a_request_id_that_is_not_plain_is_replaced(service: Service, name: str) -> None:
    """Folded, raw or long: what comes back is an id of ours."""
    async with wire(service) as hostile:
        head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-ID: {name}\r\n\r\n"
        answer = await hostile.ask(head.encode("latin-1"))
        assert answer.headers["x-request-id"].startswith("req_")
        assert "x-evil" not in answer.headers


async def test_a_client_that_never_reads_is_given_up(start: Start) -> None:
    """Its request is cancelled and its connection cut; what waited for it was bounded."""
    script = Script(texts=("x" * (1 << 16),) * 2000, holds_after=1990)
    service = await start(script, settings=HttpSettings(send_timeout_s=0.3))
    before = psutil.Process().memory_info().rss
    async with wire(service) as deaf:
        deaf.writer.write(post(json.dumps({**CHAT, "stream": True}).encode()))
        await service.until(lambda: service.engine.cancelled)
        assert psutil.Process().memory_info().rss - before < 64 << 20
    service.engine.script.texts = ("Hello",)
    await assert_unharmed(service)


async def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    """More of them than are parsed ahead."""
    async with wire(service) as eager:
        eager.writer.write(
            b"".join(
                f"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-ID: {n}\r\n\r\n".encode()
                for n in range(300)
            )
        )
        ids = [(await eager.answer()).headers["x-request-id"] for _ in range(300)]
    assert ids == [str(n) for n in range(300)]


async def test_idle_connections_make_room(start: Start) -> None:
    """The one that has been idle longest is closed for a new one."""
    service = await start(settings=HttpSettings(max_connections=3))
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(wire(service)) for _ in range(3)]
        for each in (idle[1], idle[0], idle[2]):
            assert (await each.ask(GET)).status == 200
        new = await stack.enter_async_context(wire(service))
        assert (await new.ask(GET)).status == 200
        assert await idle[1].reader.read() == b""
        assert (await idle[0].ask(GET)).status == 200


async def test_silent_connections_cannot_keep_others_out(start: Start) -> None:
    """Half a head, however often a byte is added to it, does not count as use."""
    service = await start(settings=HttpSettings(max_connections=3))
    async with AsyncExitStack() as stack:
        for _ in range(20):
            silent = await stack.enter_async_context(wire(service))
            silent.writer.write(b"GET / HTTP/1.1\r\nX-A: ")
        async with wire(service) as honest:
            assert (await honest.ask(GET)).status == 200


async def test_where_all_connections_work_a_new_one_is_503(start: Start) -> None:
    service = await start(Script(holds_after=1), settings=HttpSettings(max_connections=2))
    body = post(json.dumps({**CHAT, "stream": True}).encode())
    async with AsyncExitStack() as stack:
        for number in (1, 2):
            busy = await stack.enter_async_context(wire(service))
            busy.writer.write(body)
            await service.until(partial(_has_come, service, number))
        refused = await stack.enter_async_context(wire(service))
        answer = await refused.answer()
        assert (answer.status, answer.code) == (503, "connections_exhausted")
        assert answer.headers["retry-after"] == "1"
        assert await refused.reader.read() == b""
        service.engine.release()
        assert b"[DONE]" in await busy.reader.readuntil(b"[DONE]")


async def test_http_1_0_is_spoken(service: Service) -> None:
    """Without a Host; a stream comes without chunks and ends with the connection."""
    body = json.dumps({**CHAT, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    received = await service.exchange(head.encode() + body)
    assert received.startswith(b"HTTP/1.0 200")
    assert b"chunked" not in received
    assert received.rstrip().endswith(b"data: [DONE]")
    assert b'"data"' in await service.exchange(b"GET /v1/models HTTP/1.0\r\n\r\n")


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(
    service: Service,
) -> None:
    for _ in range(20):
        async with wire(service) as gone:
            gone.writer.write(post(b"{", "Content-Length: 100"))
            await gone.writer.drain()
    await assert_unharmed_soon(service)


async def test_a_hundred_hostile_clients_at_once_leave_the_others_alone(start: Start) -> None:
    """Every kind of them, with answers for those who behave in between."""
    service = await start(settings=HASTY)
    kinds = (b"GET / HT", post(b"{", "Content-Length: 100"), b"\x16\x03\x01\x00" * 99, GET * 50)
    async with AsyncExitStack() as stack:
        for number in range(100):
            hostile = await stack.enter_async_context(wire(service))
            hostile.writer.write(kinds[number % len(kinds)])
        ask = service.openai.chat.completions.create
        answers = await asyncio.gather(*(ask(model="scripted/parrot", **CHAT) for _ in range(20)))
    assert {each.choices[0].message.content for each in answers} == {"Hello world"}


async def test_a_response_that_fits_no_buffer_is_not_kept_for_who_does_not_read(
    start: Start,
) -> None:
    """What is true of streams is true of a whole answer."""
    service = await start(
        Script(texts=("x" * (32 << 20),)), settings=HttpSettings(send_timeout_s=0.3)
    )
    async with wire(service) as deaf:
        deaf.writer.write(post(json.dumps(CHAT).encode()))
        await service.until(lambda: service.engine.requests)
        transport: Any = deaf.writer.transport
        transport.pause_reading()
        while len(service.listener._connections):
            await asyncio.sleep(0.01)


def _has_come(service: Service, count: int) -> bool:
    return len(service.engine.requests) == count
