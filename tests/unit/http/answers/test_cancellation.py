"""DELETE /v1/requests/{id}: by either id, at any time, and what its client is told."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from dovecote_engine.errors import ContextExceeded, Overloaded
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start


async def _delete(service: Service, name: str) -> tuple[int, dict[str, object]]:
    async with service.session.delete(f"/v1/requests/{name}") as response:
        return response.status, await response.json()


async def test_a_running_request_is_cancelled_by_its_request_id(start: Start) -> None:
    """The caller hears what it was doing; the client gets a status that is not to be retried."""
    service = await start(Script(holds_after=1))
    asked = asyncio.ensure_future(_ask(service, "my-id"))
    await service.until(lambda: service.engine.status.running)
    status, body = await _delete(service, "my-id")
    name = service.engine.requests[0].id
    assert status == 200
    assert body == {
        "id": "my-id",
        "object": "request.cancellation",
        "cancelled": [{"id": name, "phase": "decoding"}],
    }
    answer, headers, error = await asked
    assert (answer, error["code"]) == (499, "cancelled")
    assert headers["x-should-retry"] == "false"
    assert service.engine.cancelled == [name]


async def test_a_stream_is_cancelled_by_its_completion_id(start: Start) -> None:
    """The stream ends with an error event."""
    service = await start(Script(holds_after=1))
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with service.post(body) as response:
        await response.content.readuntil(b"Hello")
        status, _ = await _delete(service, service.engine.requests[0].id)
        assert status == 200
        rest = await response.read()
    assert json.loads(rest.split(b"data: ")[-1])["error"]["code"] == "cancelled"


async def test_a_waiting_request_is_cancelled(start: Start) -> None:
    """It never starts."""
    service = await start(Script(holds_before_start=True))
    asked = asyncio.ensure_future(_ask(service, "my-id"))
    await service.until(lambda: service.engine.requests)
    _, body = await _delete(service, "my-id")
    assert body["cancelled"][0]["phase"] == "waiting"  # type: ignore[index]
    assert (await asked)[0] == 499


async def test_a_request_is_cancelled_before_it_is_in_the_engine(start: Start) -> None:
    """What is still being rendered or admitted ends as soon as it is submitted."""
    service = await start(Script(holds_after=0))
    service.engine.admits.clear()
    asked = asyncio.ensure_future(_ask(service, "my-id"))
    while not service.engine.model.tokenizer.rendered:
        await asyncio.sleep(0.001)
    _, body = await _delete(service, "my-id")
    assert body["cancelled"][0]["phase"] == "arriving"  # type: ignore[index]
    service.engine.admits.set()
    assert (await asked)[0] == 499


async def test_requests_that_share_an_id_all_end(start: Start) -> None:
    """An id is the client's choice, and so is its meaning."""
    service = await start(Script(holds_after=0))
    asked = [asyncio.ensure_future(_ask(service, "both")) for _ in range(2)]
    await service.until(lambda: service.engine.status.running == 2)
    _, body = await _delete(service, "both")
    assert len(body["cancelled"]) == 2  # type: ignore[arg-type]
    assert [(await each)[0] for each in asked] == [499, 499]


@pytest.mark.parametrize("name", ("nobody", "x%0Ay"))
async def test_an_unknown_id_is_404(service: Service, name: str) -> None:
    """So is one that has ended."""
    async with service.post(X_Request_ID="done") as response:
        assert response.status == 200
    for unknown in (name, "done"):
        status, body = await _delete(service, unknown)
        assert status == 404
        assert body["error"]["code"] == "request_not_found"  # type: ignore[index]


@pytest.mark.parametrize(
    ("refusal", "status"), ((Overloaded("full", 3.0), 429), (ContextExceeded(5, 9), 400))
)
async def test_what_the_screen_refuses_is_never_rendered(
    start: Start, refusal: Exception, status: int
) -> None:
    """A queue that is full costs no template and no tokenising."""
    service = await start(Script(screens_out=refusal))
    async with service.post() as response:
        assert response.status == status
        assert response.headers.get("Retry-After") == ("3" if status == 429 else None)
    assert service.engine.screened == [len("Hi")]
    assert not service.engine.model.tokenizer.rendered


@pytest.mark.parametrize(
    ("fields", "headers", "priority"),
    (
        ({}, {}, "interactive"),
        ({"priority": "background"}, {}, "background"),
        ({"priority": 7}, {}, "interactive"),
        ({}, {"X_Dovecote_Priority": "background"}, "background"),
        ({"priority": "background"}, {"X_Dovecote_Priority": "interactive"}, "interactive"),
    ),
)
async def test_a_request_may_go_to_the_background(
    service: Service, fields: dict[str, object], headers: dict[str, str], priority: str
) -> None:
    """The header goes before the body, and other servers' numbers mean nothing here."""
    body = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    async with service.post(body, **headers) as response:
        assert response.status == 200
    assert service.engine.requests[0].priority == priority


async def test_an_unknown_priority_is_named(service: Service) -> None:
    """A typing error is not taken for interactive."""
    async with service.post(X_Dovecote_Priority="backgruond") as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "X-Dovecote-Priority"


async def test_waiting_too_long_is_429_with_a_time_to_come_back(start: Start) -> None:
    """The engine's Failed carries it."""
    service = await start(Script(waits_too_long_s=7.0))
    async with service.post() as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert (await response.json())["error"]["code"] == "queue_timeout"


async def _ask(service: Service, name: str) -> tuple[int, dict[str, str], dict[str, object]]:
    async with service.post(X_Request_ID=name) as response:
        return response.status, dict(response.headers), (await response.json())["error"]
