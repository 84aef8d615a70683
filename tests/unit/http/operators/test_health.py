"""Health: live while the engine thread runs, ready while work is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dovecote_http import HttpSettings
from tests.unit.http.lives import held, settled
from tests.unit.http.scripted_engine import Pool, Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start


async def status_of(service: Service, path: str) -> tuple[int, str | None]:
    async with service.session.get(path) as response:
        body = await response.json()
        assert (response.status == 503) is ("Retry-After" in response.headers)
    return response.status, body["error"]["code"] if "error" in body else None


@pytest.mark.parametrize("prefix", ("/v1", ""))
@pytest.mark.parametrize("path", ("/health", "/health/live", "/health/ready"))
async def test_a_running_service_is_live_and_ready(
    service: Service, prefix: str, path: str
) -> None:
    """All three answer 200, with and without the prefix."""
    assert await status_of(service, prefix + path) == (200, None)


async def test_a_draining_service_is_live_but_not_ready(service: Service) -> None:
    """Readiness turns first, so that balancers stop sending."""
    assert await service.bridge.drain(1)
    assert await status_of(service, "/health/ready") == (503, "draining")
    assert await status_of(service, "/health/live") == (200, None)


async def test_an_engine_that_is_lost_twice_is_neither(start: Start) -> None:
    """An exception out of a step fails the request, and the second one both probes for good."""
    service = await start(Script(crashes_after=1))
    for _ in range(2):
        async with service.post() as response:
            assert response.status == 500
            assert "secret" not in await response.text()
        await settled(service.bridge)
    for path in ("/health/live", "/health/ready", "/v1/models"):
        assert await status_of(service, path) == (503, "engine_stopped")
    async with service.post() as response:
        assert response.status == 503


async def test_an_engine_that_is_being_replaced_is_live_but_not_ready(start: Start) -> None:
    """Nobody outside needs to do anything, yet nothing can be sent until the next one is up."""
    service = await start(Script(crashes_after=1))
    service.bridge._factory, go = held(service.bridge._factory)
    async with service.post() as response:
        assert response.status == 500
    assert await status_of(service, "/health/ready") == (503, "engine_stopped")
    assert await status_of(service, "/health/live") == (200, None)
    go.set()
    await settled(service.bridge)
    assert await status_of(service, "/health/ready") == (200, None)
    assert len(service.engines) == 2


async def test_a_stuck_step_turns_both_probes(start: Start) -> None:
    """A step beyond stall_s fails its requests; once it returns, another engine is made."""
    service = await start(Script(sticks_after=1), HttpSettings(stall_s=0.05))
    async with service.post() as response:
        assert response.status == 500
    assert await status_of(service, "/health/ready") == (503, "engine_stalled")
    assert await status_of(service, "/health/live") == (503, "engine_stopped")
    async with service.post() as response:
        assert response.status == 503
    first = service.engine
    first.unstick.set()
    await settled(service.bridge)
    assert first.closed
    assert await status_of(service, "/health/ready") == (200, None)


async def test_readiness_turns_with_the_pool_and_back_later(start: Start) -> None:
    """503 above 90 % of active use, and only 200 again at 80 %."""
    script = Script(pool=Pool(frames=100, leased=60, promised=30))
    service = await start(script)
    seen = []
    for promised in (30, 31, 25, 21, 20, 25, 30, 31):
        script.pool = Pool(frames=100, leased=60, promised=promised)
        seen.append((await status_of(service, "/health/ready"))[0])
    assert seen == [200, 503, 503, 503, 200, 200, 200, 503]
    assert await status_of(service, "/health/ready") == (503, "pool_pressure")
