"""Health: live while the engine thread runs, ready while work is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dovecote_http import HttpSettings
from tests.unit.http.scripted_engine import Script

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


async def test_a_lost_engine_is_neither(start: Start) -> None:
    """An exception out of a step fails the request, and then both probes."""
    service = await start(Script(crashes_after=1))
    async with service.post() as response:
        assert response.status == 500
        assert "secret" not in await response.text()
    for path in ("/health/live", "/health/ready", "/v1/models"):
        assert await status_of(service, path) == (503, "engine_stopped")
    async with service.post() as response:
        assert response.status == 503


async def test_a_stalled_step_is_not_ready(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes longer than stall_s turns readiness, until it ends."""
    service = await start(settings=HttpSettings(stall_s=1e-9))
    monkeypatch.setattr(service.bridge, "_step_began_s", 0.0)
    assert await status_of(service, "/health/ready") == (503, "engine_stalled")
    monkeypatch.setattr(service.bridge, "_step_began_s", None)
    assert await status_of(service, "/health/ready") == (200, None)
