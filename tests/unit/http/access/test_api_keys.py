"""API keys: how they are written, which are taken, and what they open."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from typing import TYPE_CHECKING

import anthropic
import openai
import pytest
import structlog

from dovecote_http import Access, BadKeys, KeyRing, parse_keys
from dovecote_http.access.api_keys import ApiKey, presented_keys
from dovecote_http.server import _key_reloads

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

ADA, BOB, ROOT = "ada-0123456789abcdef", "bob-0123456789abcdef", "root-0123456789abcdef"
TEXT = f"# who may\n\nada:{ADA}\nbob: {BOB}\r\n  ops:{ROOT}  admin\n"
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
ROUTES = (
    ("POST", "/v1/chat/completions"),
    ("POST", "/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/agents"),
    ("DELETE", "/v1/agents/x"),
    ("DELETE", "/v1/requests/x"),
    ("GET", "/metrics"),
    ("GET", "/v1/nothing"),
    ("PUT", "/v1/models"),
)


def keys(text: str = TEXT) -> Access:
    return Access(keys=KeyRing(lambda: parse_keys(text)))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_line_is_a_tenant_s_key_or_an_admin_s() -> None:
    found = parse_keys(TEXT)
    assert [key.tenant for key in found] == ["ada", "bob", None]
    assert [key.digest for key in found] == [
        hashlib.sha256(key.encode()).digest() for key in (ADA, BOB, ROOT)
    ]


def test_a_digest_stands_for_its_key() -> None:
    digest = hashlib.sha256(ADA.encode()).hexdigest()
    assert parse_keys(f"ada:sha256:{digest}") == parse_keys(f"ada:{ADA}")
    assert parse_keys(f"sha256:{digest}") == parse_keys(ADA)


def test_a_key_alone_is_an_admin_s() -> None:
    """One key and no name: there is nobody to be kept apart."""
    assert parse_keys(f"\n{ADA}\n") == (ApiKey(hashlib.sha256(ADA.encode()).digest(), None),)


@pytest.mark.parametrize(
    ("text", "line"),
    (
        ("ada:short", 1),
        (f"\n{ADA}\n{BOB}", 2),
        (f"a/b:{ADA}", 1),
        (f"{'n' * 65}:{ADA}", 1),
        (f":{ADA}", 1),
        ("ada:", 1),
        (f"ada:{ADA} owner", 1),
        (f"ada:{ADA} admin admin", 1),
        (f"ada:{ADA}\nbob:{ADA}", 2),
        ("ada:ключ-0123456789abcdef", 1),
        (f"ada:{'k' * 513}", 1),
        (f"ada:{ADA}\x00", 1),
    ),
)
def test_what_is_no_key_is_refused_by_its_line(text: str, line: int) -> None:
    """The refusal repeats no key."""
    with pytest.raises(BadKeys) as caught:
        parse_keys(text)
    assert caught.value.line == line
    assert "0123456789" not in str(caught.value)


def test_both_headers_bring_a_key() -> None:
    assert presented_keys({"Authorization": "bearer  k1 ", "x-api-key": "k2"}) == ["k1", "k2"]
    assert presented_keys({"Authorization": "Basic k1"}) == []
    assert presented_keys({"Authorization": "Bearer ", "x-api-key": ""}) == []


def test_no_key_is_kept_in_the_clear() -> None:
    ring = keys().keys
    assert ring is not None
    assert ADA not in repr(ring._keys)


def test_every_key_is_compared_whatever_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time, and no sooner done for the first one (K2)."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    ring = keys().keys
    assert ring is not None
    for presented in (ADA, BOB, "nobody's"):
        compared.clear()
        ring.find([presented])
        assert len(compared) == 3


@pytest.mark.parametrize(
    "headers", ({}, bearer("wrong-0123456789abcdef"), {"x-api-key": "\xff"}, bearer(ADA[:-1]))
)
async def test_without_a_known_key_every_path_is_401(start: Start, headers: dict[str, str]) -> None:
    """Whether there is something there or not; OpenAI's code, and what HTTP asks of a 401."""
    service = await start(access=keys())
    for method, path in ROUTES:
        async with service.session.request(method, path, headers=headers, json=CHAT) as response:
            error = (await response.json())["error"]
        assert response.status == 401
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == "invalid_api_key"
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.headers["x-request-id"]
    assert service.engine.requests == []


async def test_probes_need_no_key(start: Start) -> None:
    service = await start(access=keys())
    for path in ("/health", "/v1/health", "/health/live", "/health/ready"):
        async with service.session.get(path) as response:
            assert response.status == 200


async def test_metrics_need_an_admin_s_key(start: Start) -> None:
    """They tell of everybody."""
    service = await start(access=keys())
    for key, status in ((ADA, 403), (ROOT, 200)):
        async with service.session.get("/metrics", headers=bearer(key)) as response:
            assert response.status == status


async def test_the_clients_of_both_houses_get_in(start: Start) -> None:
    """OpenAI's with a bearer token, Anthropic's with x-api-key; a wrong key is each one's error."""
    service = await start(access=keys())
    url = f"http://127.0.0.1:{service.port}"
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=ADA, max_retries=0) as client:
        assert (await client.models.list()).data
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.with_options(api_key="wrong").models.list()
    assert caught.value.code == "invalid_api_key"
    async with anthropic.AsyncAnthropic(base_url=url, api_key=ADA, max_retries=0) as other:
        assert (await other.models.list()).data


async def test_without_keys_any_key_is_taken(service: Service) -> None:
    async with service.post(Authorization="Bearer whatever") as response:
        assert response.status == 200


async def test_keys_are_replaced_without_a_restart(start: Start) -> None:
    """What cannot be read changes nothing."""
    text = [f"ada:{ADA}"]
    ring = KeyRing(lambda: parse_keys(text[0]))
    service = await start(access=Access(keys=ring))

    async def status(key: str) -> int:
        async with service.session.get("/v1/models", headers=bearer(key)) as response:
            return response.status

    assert (await status(ADA), await status(BOB)) == (200, 401)
    text[0] = "nonsense:"
    with pytest.raises(BadKeys):
        ring.reload()
    assert await status(ADA) == 200
    text[0] = f"ada:{BOB}"
    ring.reload()
    assert (await status(ADA), await status(BOB)) == (401, 200)


async def test_sighup_has_the_keys_read_again(start: Start) -> None:
    text = [f"ada:{ADA}"]
    ring = KeyRing(lambda: parse_keys(text[0]))
    service = await start(access=Access(keys=ring))
    with structlog.testing.capture_logs() as logs, _key_reloads(service.app):
        for line, event in ((f"ada:{BOB}", "api_keys_reloaded"), ("x", "api_keys_not_reloaded")):
            text[0] = line
            os.kill(os.getpid(), signal.SIGHUP)
            while not logs or logs[-1]["event"] != event:
                await asyncio.sleep(0)
    assert ring.find([BOB]) is not None
    assert ring.find([ADA]) is None
