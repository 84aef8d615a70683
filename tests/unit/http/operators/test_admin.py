"""Administrative calls: who may make them, and what the small ones do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dovecote_http import Access, KeyRing, parse_keys
from tests.unit.http.scripted_engine import Pool, Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

CALLS = (
    ("GET", "/admin/swap"),
    ("POST", "/admin/swap"),
    ("POST", "/admin/drain"),
    ("POST", "/admin/undrain"),
    ("GET", "/admin/pool"),
    ("POST", "/admin/pool/verify"),
)
RELAYED = (
    {"Origin": "http://127.0.0.1:8080"},
    {"Sec-Fetch-Site": "cross-site"},
    {"X-Forwarded-For": "203.0.113.7"},
    {"Forwarded": "for=203.0.113.7"},
)


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_web_pages_and_proxies_are_not_on_this_machine(
    service: Service, method: str, path: str
) -> None:
    """A page in a browser here, or the world through a proxy here, come from loopback as well."""
    for headers in RELAYED:
        async with service.session.request(method, path, headers=headers) as response:
            assert response.status == 403
            assert "error" in await response.json()


async def test_a_drained_server_ends_what_runs_and_takes_nothing_new(start: Start) -> None:
    """Readiness turns and requests get 503 until undrained; the stream that ran ends whole."""
    service = await start(Script(holds_after=1))
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with service.post(body) as stream:
        await stream.content.readline()
        async with service.session.post("/admin/drain") as response:
            told = await response.json()
        assert (told["draining"], told["running"]) == (True, 1)
        async with service.post() as refused:
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "drained"
            assert refused.headers["Retry-After"] == "10"
        async with service.session.get("/health/ready") as ready:
            assert (await ready.json())["error"]["code"] == "drained"
        service.engine.release()
        assert (await stream.read()).endswith(b"data: [DONE]\n\n")
    async with service.session.post("/v1/admin/undrain") as response:
        assert not (await response.json())["draining"]
    async with service.post() as answered:
        assert answered.status == 200


async def test_the_pool_is_told_in_the_words_of_the_metrics(start: Start) -> None:
    service = await start(Script(pool=Pool(frames=100, leased=20, promised=30, miss_io=7)))
    async with service.session.get("/admin/pool") as response:
        told = await response.json()
    assert (told["object"], told["model"]) == ("pool", "scripted/parrot")
    assert told["active_share"] == 0.5
    assert (told["frames"], told["leased_frames"], told["miss_io"]) == (100, 20, 7)


async def test_verifying_goes_through_every_frame(service: Service) -> None:
    """In slices, which add up: of 101 frames every tenth is damaged."""
    async with service.session.post("/admin/pool/verify") as response:
        told = await response.json()
    assert (told["checked_frames"], told["damaged_frames"], told["sound"]) == (101, 11, False)


async def test_a_verification_tells_how_far_it_is(service: Service) -> None:
    """An event a slice of 32 frames, the answer as the last one; other wishes are refused."""
    async with service.session.post("/admin/pool/verify", json={"stream": True}) as response:
        lines = (await response.text()).split("\n\n")
    *way, found = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert [told["frames_done"] for told in way] == [32, 64, 96, 101]
    assert {told["frames"] for told in way} == {101}
    assert (found["object"], found["damaged_frames"]) == ("pool.verification", 11)
    assert lines[-2:] == ["data: [DONE]", ""]
    async with service.session.post("/admin/pool/verify", json={"stream": 7}) as response:
        assert response.status == 400


async def test_a_broken_index_is_told(start: Start) -> None:
    service = await start(Script(is_sound=False, pool=Pool(frames=0)))
    async with service.session.post("/admin/pool/verify") as response:
        assert not (await response.json())["sound"]


async def test_a_bad_swap_is_refused_with_its_field(service: Service) -> None:
    """Without other models there is nothing to swap to, which is said before anything is done."""
    for body, param in (
        ({"model": "owl"}, "model"),
        ({"model": "owl", "drain_seconds": -1}, "drain_seconds"),
        ({"model": "owl", "drain_seconds": 1e9}, "drain_seconds"),
    ):
        async with service.session.post("/admin/swap", json=body) as response:
            assert response.status == 400
            assert (await response.json())["error"]["param"] == param
    async with service.session.get("/admin/swap") as response:
        told = await response.json()
    assert (told["model"], told["models"], told["last"]) == ("scripted/parrot", [], None)


async def test_startup_is_told_apart_from_readiness(service: Service) -> None:
    """Once started, a drain changes readiness alone."""
    async with service.session.post("/admin/drain"):
        pass
    for path, status in (("/health/startup", 200), ("/health/live", 200), ("/health/ready", 503)):
        async with service.session.get(path) as response:
            assert response.status == status


async def test_with_keys_an_admin_key_decides(start: Start) -> None:
    """From wherever it comes; a tenant's key is refused on this machine as well."""
    ring = KeyRing(lambda: parse_keys(f"ops:{'o' * 16} admin\nacme:{'a' * 16}"))
    service = await start(access=Access(keys=ring))
    for key, relayed, status in (("o", True, 200), ("o", False, 200), ("a", False, 403)):
        headers = {"Authorization": f"Bearer {key * 16}"}
        headers |= {"X-Forwarded-For": "203.0.113.7"} if relayed else {}
        async with service.session.get("/admin/pool", headers=headers) as response:
            assert response.status == status
