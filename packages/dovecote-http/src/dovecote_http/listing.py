"""GET /v1/models, /v1/models/{id} and /v1/agents: what this server has.

Read only. Does not know how models are loaded or agents kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.errors import model_not_found
from dovecote_http.keys import BRIDGE

if TYPE_CHECKING:
    from dovecote_http.engine_like import AgentLike, ModelLike


class ModelBody(Struct, frozen=True):
    """A model as OpenAI lists it."""

    id: str
    object: str
    created: int
    owned_by: str


class AgentBody(Struct, frozen=True):
    """An agent: its name, and how long its chain is. Times in unix seconds."""

    id: str
    object: str
    model: str
    tokens: int
    created: int
    last_used: int


class Listing(Struct, frozen=True):
    """A list of either."""

    object: str
    data: list[ModelBody] | list[AgentBody]


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


async def agents(request: web.Request) -> web.Response:
    """All agents of the book."""
    book = await request.app[BRIDGE].agents()
    return _json(Listing("list", [_agent_body(agent) for agent in book]))


def _model_body(served: ModelLike) -> ModelBody:
    return ModelBody(served.id, "model", served.created, "dovecote")


def _agent_body(agent: AgentLike) -> AgentBody:
    return AgentBody(
        agent.name, "agent", agent.model, agent.tokens, int(agent.created), int(agent.last_used)
    )


def _json(body: Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
