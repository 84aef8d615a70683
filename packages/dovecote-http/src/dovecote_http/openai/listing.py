"""GET /v1/models and /v1/models/{id}: what this server serves, or would on request.

Read only. Does not know how models are loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.errors import model_not_found
from dovecote_http.keys import BRIDGE, SWAPS

if TYPE_CHECKING:
    from dovecote_http.bridge.engine_like import ModelLike


class ModelBody(Struct, frozen=True, omit_defaults=True):
    """A model as OpenAI lists it; `uncached` says why its prompts are computed anew every time."""

    id: str
    object: str
    created: int
    owned_by: str
    uncached: str = ""


class Listing(Struct, frozen=True):
    """The list of models."""

    object: str
    data: list[ModelBody]


async def models(request: web.Request) -> web.Response:
    """The models that a request may name: the served one first."""
    served = request.app[BRIDGE].model
    others = [name for name in request.app[SWAPS].requestable if name != served.id]
    return _json(Listing("list", [_model_body(served), *map(_unloaded_body, others)]))


async def model(request: web.Request) -> web.Response:
    """One of the models that a request may name."""
    served = request.app[BRIDGE].model
    asked = request.match_info["id"]
    if asked == served.id:
        return _json(_model_body(served))
    if asked in request.app[SWAPS].requestable:
        return _json(_unloaded_body(asked))
    raise model_not_found(asked, served.id)


def _model_body(served: ModelLike) -> ModelBody:
    return ModelBody(served.id, "model", served.created, "dovecote", served.uncached)


def _unloaded_body(name: str) -> ModelBody:
    """When it was made is told by its files, which are not looked at before it is loaded."""
    return ModelBody(name, "model", 0, "dovecote")


def _json(body: Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
