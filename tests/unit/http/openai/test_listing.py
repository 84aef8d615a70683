"""Models as a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service

MODEL = {
    "id": "scripted/parrot",
    "object": "model",
    "created": 1_700_000_000,
    "owned_by": "dovecote",
}


@pytest.mark.parametrize("prefix", ("/v1", ""))
async def test_the_served_model_is_listed(service: Service, prefix: str) -> None:
    """One model, in OpenAI's shape, with and without the prefix, also by an id with a slash."""
    async with service.session.get(f"{prefix}/models") as response:
        assert await response.json() == {"object": "list", "data": [MODEL]}
    async with service.session.get(f"{prefix}/models/scripted/parrot") as response:
        assert await response.json() == MODEL


async def test_openais_client_lists_models(service: Service) -> None:
    """The typed client finds the model by list and by id."""
    assert [model.id async for model in service.openai.models.list()] == ["scripted/parrot"]
    assert (await service.openai.models.retrieve("scripted/parrot")).owned_by == "dovecote"
