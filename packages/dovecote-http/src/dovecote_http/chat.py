"""POST /v1/chat/completions: from a body to a request. `calls.py` has what follows.

Does not know how answers are computed or sent.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dovecote_engine.request import Request
from dovecote_http.bodies import ChatBody, decode_chat, template_messages
from dovecote_http.calls import Call, Wanted, answer_call, limited, read_call
from dovecote_http.keys import BRIDGE
from dovecote_http.replies import ChatReplies
from dovecote_http.wishes import sampling_of

if TYPE_CHECKING:
    from aiohttp import web


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answers one chat completion, in one piece or as a stream."""
    async with limited(request) as received_s:
        body = decode_chat(await request.read())
        call = read_call(request, body, "chatcmpl", received_s)
        return await answer_call(call, partial(_wanted, call, body))


async def _wanted(call: Call, body: ChatBody) -> Wanted:
    """The call in the engine's words: rendered and tokenised, unless that is in vain."""
    messages = template_messages(body)
    bridge = call.http.app[BRIDGE]
    bridge.screen(sum(len(str(message["content"])) for message in messages))
    request = Request(
        id=call.answer.id,
        prompt=await bridge.render(messages),
        max_tokens=body.token_limit,
        sampling=sampling_of(body),
        agent=call.agent,
        stop=body.stops,
        choices=body.n or 1,
        top_logprobs=body.ranked_tokens,
        priority=call.priority,
        salt=body.salt,
    )
    return Wanted((request,), ChatReplies(call.answer), bool(body.stream), body.wants_usage)
