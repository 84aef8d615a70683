"""GET /v1/models and /v1/models/{id}: what this server serves.

Read only. Does not know how models are loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.errors import model_not_found
from dovecote_http.keys import BRIDGE

if TYPE_CHECKING:
    from dovecote_http.engine_like import ModelLike


class ModelBody(Struct, frozen=True):
    """A model as OpenAI lists it."""

    id: str
    object: str
    created: int
    owned_by: str


class Listing(Struct, frozen=True):
    """The list of models."""

    object: str
    data: list[ModelBody]


async def models(request: web.Request) -> web.Response:
    """The served model, as a list of one."""
    return _json(Listing("list", [_model_body(request.app[BRIDGE].model)]))


async def model(request: web.Request) -> web.Response:
    """One model; 404 for any but the served one."""
    served = request.app[BRIDGE].model
    asked = request.match_info["id"]
    if asked != served.id:
        raise model_not_found(asked, served.id)
    return _json(_model_body(served))


def _model_body(served: ModelLike) -> ModelBody:
    return ModelBody(served.id, "model", served.created, "dovecote")


def _json(body: Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
