from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("path", "body"), (("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "Hi"}))
)
async def test_the_salt_reaches_the_engine(
    service: Service, path: str, body: dict[str, object]
) -> None:
    """As its bytes; without one it is empty, which is the salt that everybody shares."""
    for wish, salt in (
        ({"cache_salt": "böse"}, "böse".encode()),
        ({}, b""),
        ({"cache_salt": None}, b""),
    ):
        async with service.session.post(path, json=body | wish) as response:
            assert response.status == 200
        assert service.engine.requests[-1].salt == salt


@pytest.mark.parametrize("salt", ("", "x" * 257, 7, ["x"]))
async def test_a_bad_salt_is_a_400(service: Service, salt: object) -> None:
    """An empty one would share what was meant to be separate."""
    async with service.post({**CHAT, "cache_salt": salt}) as response:
        body = await response.json()
    assert response.status == 400
    assert body["error"]["param"] == "cache_salt"
