"""POST /v1/cache/probe: what a chat completion would find in the cache, without computing it.

The body is that of the completion. The answer says how many tokens of the prompt are cached and,
where the prompt leaves the history of the agent that is named, at which token, and what stands
there on either side: a time stamp in the system prompt, perhaps, or a tool list in another order.

Does not know the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.answers.bodies import decode_chat
from dovecote_http.answers.calls import limited, read_call
from dovecote_http.keys import BRIDGE, TENANT
from dovecote_http.openai.chat import chat_request

if TYPE_CHECKING:
    from dovecote_engine.agents.forecast import Forecast
    from dovecote_http.bridge.bridge import EngineBridge

__all__ = ["probe"]


class Divergence(Struct, frozen=True):
    """Where prompt and history part: the first token that differs, and a few from there on."""

    token: int
    prompt_text: str
    history_text: str


class ProbeBody(Struct, frozen=True):
    """`history_tokens`: of the agent's history, null without one; `known_tokens` of it are left."""

    object: str
    model: str
    agent: str | None
    prompt_tokens: int
    cached_tokens: int
    history_tokens: int | None
    known_tokens: int
    divergence: Divergence | None


async def probe(request: web.Request) -> web.Response:
    """What the completion of this body would find."""
    async with limited(request) as received_s:
        body = decode_chat(await request.read())
        call = read_call(request, body, "probe-", received_s)
        wanted = request[TENANT].own(await chat_request(call, body))
        bridge = request.app[BRIDGE]
        found = await bridge.ask(
            lambda engine: engine.agents.forecast(wanted.agent, wanted.prompt, wanted.salt)
        )
        answer = ProbeBody(
            object="cache.probe",
            model=call.answer.model,
            agent=call.agent,
            prompt_tokens=found.prompt_tokens,
            cached_tokens=found.cached_tokens,
            history_tokens=found.agent_tokens,
            known_tokens=found.known_tokens,
            divergence=await _divergence(bridge, found),
        )
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


async def _divergence(bridge: EngineBridge, found: Forecast) -> Divergence | None:
    if found.diverges_at is None:
        return None
    prompt, history = await bridge.decode(found.found), await bridge.decode(found.expected)
    return Divergence(found.diverges_at, prompt, history)
