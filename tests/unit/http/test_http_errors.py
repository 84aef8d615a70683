"""Errors: one shape for every status, and nothing told that should not be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from dovecote_engine.errors import (
    BadRequest,
    ContextExceeded,
    Draining,
    Overloaded,
)
from dovecote_http import HttpSettings
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

INVALID = "invalid_request_error"


async def error_of(
    service: Service, method: str, path: str, data: bytes = b""
) -> dict[str, object]:
    """The status and the error, once the body has proved to have exactly its shape."""
    async with service.session.request(method, path, data=data) as response:
        body = await response.json()
        assert response.headers["x-request-id"]
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return {"status": response.status, **body["error"]}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    (
        ("GET", "/nothing", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt-9", 404, "model_not_found"),
        ("POST", "/v1/chat/completions", 400, None),
    ),
)
async def test_the_routers_errors_have_the_shape(
    service: Service, method: str, path: str, status: int, code: str | None
) -> None:
    """404 and 405 look like every other error."""
    error = await error_of(service, method, path)
    assert (error["status"], error["type"], error["code"]) == (status, INVALID, code)


async def test_a_405_says_what_is_allowed(service: Service) -> None:
    """The Allow header survives."""
    async with service.session.get("/v1/chat/completions") as response:
        assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("refusal", "status", "kind", "param", "code", "retry"),
    (
        (ContextExceeded(2048, 9000), 400, INVALID, "messages", "context_length_exceeded", None),
        (BadRequest("No.", "seed"), 400, INVALID, "seed", None, None),
        (Overloaded("Full.", 0.25), 429, "rate_limit_error", None, "overloaded", ("1", "250")),
        (Overloaded("Full.", 900), 429, "rate_limit_error", None, "overloaded", ("120", "120000")),
        (Draining("Bye.", 2.5), 503, "server_error", None, "draining", ("3", "2500")),
    ),
)
async def test_admission_decides_the_status(
    start: Start,
    refusal: Exception,
    status: int,
    kind: str,
    param: str | None,
    code: str | None,
    retry: tuple[str, str] | None,
) -> None:
    """Each refusal of the engine has its status, type, code and retry headers."""
    service = await start(Script(refusal=refusal))
    async with service.post() as response:
        error = (await response.json())["error"]
        assert response.status == status
        found = (response.headers.get("Retry-After"), response.headers.get("retry-after-ms"))
    assert error == {"message": str(refusal), "type": kind, "param": param, "code": code}
    assert found == (retry or (None, None))


async def test_a_context_too_long_is_worded_as_clients_expect(start: Start) -> None:
    """LiteLLM recognises "maximum context length is N tokens"."""
    service = await start(Script(refusal=ContextExceeded(2048, 9000)))
    async with service.post() as response:
        message = (await response.json())["error"]["message"]
    assert "maximum context length is 2048 tokens" in message


async def test_a_body_too_large_is_a_413(start: Start) -> None:
    """One byte over the limit is refused; the limit itself is not."""
    service = await start(settings=HttpSettings(max_body_bytes=100))
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
    path = "/v1/chat/completions"
    error = await error_of(service, "POST", path, body.ljust(101))
    assert (error["status"], error["code"]) == (413, "request_too_large")
    async with service.session.post(path, data=body.ljust(100)) as response:
        assert response.status == 200


async def test_a_defect_is_a_500_without_internals(service: Service) -> None:
    """The client learns nothing; the log has the exception with the request id."""
    service.engine.model.tokenizer.error = ZeroDivisionError("secret")
    with capture_logs() as logs:
        async with service.post(X_Request_ID="r-1") as response:
            text = await response.text()
            assert response.status == 500
    assert "secret" not in text
    assert json.loads(text)["error"]["code"] == "internal_error"
    (logged,) = [line for line in logs if line["event"] == "request_failed"]
    assert isinstance(logged["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize(
    "sent",
    (
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
    ),
)
async def test_what_is_not_http_has_the_shape_too(service: Service, sent: bytes) -> None:
    """A request that cannot be parsed is a 400 in JSON that repeats none of it."""
    head, _, body = (await service.exchange(sent)).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"x-request-id: req_" in head
    assert b"Server: dovecote" in head
    error = json.loads(body)["error"]
    assert error["code"] == "malformed_http"
    assert "yyy" not in error["message"]


async def test_a_bad_agent_name_is_refused_before_the_engine(service: Service) -> None:
    """The 400 names the header, and nothing was submitted."""
    async with service.post(X_Agent_ID="x" * 257) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "X-Agent-ID"
    assert service.engine.requests == []


@pytest.mark.parametrize(
    ("given", "echoed"),
    (("a.B_c-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False)),
)
@pytest.mark.parametrize("name", ("X-Request-ID", "x-client-request-id"))
async def test_a_sane_request_id_is_echoed(
    service: Service, name: str, given: str, *, echoed: bool
) -> None:
    """The caller's id comes back if it is safe to log; otherwise a new one does."""
    async with service.session.get("/v1/models", headers={name: given}) as response:
        found = response.headers["x-request-id"]
    assert (found == given) is echoed
    assert echoed or found.startswith("req_")


BODY = b'{"messages":[{"role":"user","content":"Hi"}]}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    (
        (b"Expect: magic\r\nContent-Length: 0\r\n\r\n", 417),
        (b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk", 400),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\njunk\r\n", 400),
    ),
)
async def test_a_body_that_cannot_be_received_has_the_shape(
    service: Service, sent: bytes, status: int
) -> None:
    """Expectations and encodings that fail are the client's errors."""
    head, _, body = (await service.exchange(POST + sent)).partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode()
    assert b"x-request-id: req_" in head
    assert json.loads(body)["error"]["type"] == INVALID


async def test_a_client_may_wait_for_continue(service: Service) -> None:
    """The interim answer comes first, then the whole one."""
    head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    raw = await service.exchange(head + BODY)
    interim, _, rest = raw.partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert rest.startswith(b"HTTP/1.1 200 OK")
