"""What web pages may do, and under which names this server answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dovecote_engine.errors import Overloaded
from dovecote_http import Access, KeyRing, RateLimits, parse_keys
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.unit.http.conftest import Service, Start

PAGE, OTHER = "https://chat.example", "https://elsewhere.example"
KEY = "ada-0123456789abcdef"
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
ASKED = "authorization,content-type,x-stainless-os,x-session-id"
PATHS = ("/v1/chat/completions", "/v1/models", "/v1/agents/x/archive", "/metrics", "/nothing")


def readable(headers: Mapping[str, str], origin: str = PAGE) -> bool:
    """Whether a page of that origin may read the response."""
    assert headers["Vary"] == "Origin"
    allowed = headers.get("Access-Control-Allow-Origin")
    if allowed is not None:
        assert "x-request-id" in headers["Access-Control-Expose-Headers"]
        assert "Retry-After" in headers["Access-Control-Expose-Headers"]
    return allowed == origin


@pytest.mark.parametrize("path", PATHS)
async def test_a_preflight_needs_no_key(start: Start, path: str) -> None:
    """Browsers send none with it; what it asks for is allowed, on every path."""
    ring = KeyRing(lambda: parse_keys(KEY))
    service = await start(access=Access(keys=ring, origins=frozenset({PAGE})))
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": ASKED,
        "Access-Control-Request-Private-Network": "true",
    }
    async with service.session.options(path, headers=headers) as response:
        assert response.status == 204
        assert readable(response.headers)
        assert response.headers["Access-Control-Allow-Headers"] == ASKED
        assert "DELETE" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Access-Control-Allow-Private-Network"] == "true"
        assert response.headers["x-request-id"]


async def test_a_preflight_of_another_page_allows_nothing(start: Start) -> None:
    service = await start(access=Access(origins=frozenset({PAGE})))
    headers = {"Origin": OTHER, "Access-Control-Request-Method": "POST"}
    async with service.session.options("/v1/models", headers=headers) as response:
        assert response.status == 204
        assert not [name for name in response.headers if name.startswith("Access-Control")]
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("asked", ("x" * 3000, "a\tb", "<script>"))
async def test_only_names_of_headers_are_echoed(start: Start, asked: str) -> None:
    service = await start(access=Access(origins=frozenset({PAGE})))
    headers = {"Origin": PAGE, "Access-Control-Request-Headers": asked}
    async with service.session.options("/v1/models", headers=headers) as response:
        assert asked not in response.headers["Access-Control-Allow-Headers"]


async def test_every_answer_can_be_read_by_the_page(start: Start) -> None:
    """A success, a stream, 401, 404, 405, 413, 429 of the limits and of the engine."""
    limits = RateLimits(requests_per_minute=4)
    ring = KeyRing(lambda: parse_keys(f"ada:{KEY}"))
    service = await start(access=Access(keys=ring, origins=frozenset({PAGE}), limits=limits))
    known = {"Origin": PAGE, "Authorization": f"Bearer {KEY}"}
    for method, path, headers, body, status in (
        ("POST", "/v1/chat/completions", known, CHAT, 200),
        ("POST", "/v1/chat/completions", known, {**CHAT, "stream": True}, 200),
        ("GET", "/v1/models", {"Origin": PAGE}, None, 401),
        ("GET", "/v1/nothing", known, None, 404),
        ("PUT", "/v1/models", known, None, 405),
        ("POST", "/v1/chat/completions", known, {}, 400),
        ("POST", "/v1/chat/completions", known, {"model": "other", **CHAT}, 404),
        ("POST", "/v1/chat/completions", known, CHAT, 429),
    ):
        async with service.session.request(method, path, headers=headers, json=body) as response:
            await response.read()
            assert response.status == status
            assert readable(response.headers)


async def test_refusals_of_the_engine_can_be_read_too(start: Start) -> None:
    script = Script(refusal=Overloaded("The queue is full.", 3.0))
    service = await start(script, access=Access(origins=frozenset({PAGE})))
    async with service.post(Origin=PAGE) as response:
        assert response.status == 429
        assert readable(response.headers)
    service.bridge._draining = True
    async with service.session.get("/health", headers={"Origin": PAGE}) as response:
        assert response.status == 503
        assert readable(response.headers)


async def test_all_origins_come_without_credentials(start: Start) -> None:
    """A named origin may have them, as no other page can borrow its name."""
    for origins, allowed, credentials in (
        ({"*"}, "*", None),
        ({PAGE}, PAGE, "true"),
        ({"*", PAGE}, PAGE, "true"),
    ):
        service = await start(access=Access(origins=frozenset(origins)))
        async with service.session.get("/v1/models", headers={"Origin": PAGE}) as response:
            assert readable(response.headers, allowed)
            assert response.headers.get("Access-Control-Allow-Credentials") == credentials


async def test_by_default_no_page_may_read_anything(service: Service) -> None:
    async with service.session.get("/v1/models", headers={"Origin": PAGE}) as response:
        assert response.status == 200
        assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_without_keys_a_foreign_page_can_cause_nothing(start: Start) -> None:
    """A form of another site needs no preflight; this server's own page and plain clients go on."""
    service = await start(access=Access(origins=frozenset({PAGE})))
    own = f"http://127.0.0.1:{service.port}"
    for origin, status in ((OTHER, 403), ("null", 403), (PAGE, 200), (own, 200), (None, 200)):
        headers = {} if origin is None else {"Origin": origin}
        async with service.session.post(
            "/v1/chat/completions", json=CHAT, headers=headers
        ) as response:
            assert response.status == status
            if status == 403:
                assert (await response.json())["error"]["code"] == "origin_not_allowed"
    assert len(service.engine.requests) == 3


@pytest.mark.parametrize(
    ("host", "status"),
    (
        ("attacker.example", 403),
        ("localhost.attacker.example", 403),
        ("127.0.0.1.attacker.example:80", 403),
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("LOCALHOST.:80", 200),
        ("app.localhost:80", 200),
        ("[::1]:8080", 200),
        ("box.local:8080", 200),
    ),
)
async def test_on_loopback_another_s_name_is_not_ours(start: Start, host: str, status: int) -> None:
    """A page whose name was made to resolve to this machine sends that name as the host."""
    service = await start(access=Access(hosts=frozenset({"box.local"})))
    async with service.session.get("/v1/models", headers={"Host": host}) as response:
        assert response.status == status
