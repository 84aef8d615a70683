"""POST /v1/chat/completions: from a body to a request. `calls.py` has what follows.

Does not know how answers are computed or sent.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dovecote_engine.request import Request
from dovecote_http.answers.bodies import ChatBody, decode_chat, template_messages
from dovecote_http.answers.calls import Call, Wanted, answer_call, limited, read_call
from dovecote_http.answers.forms import answer_form, shown_tools
from dovecote_http.answers.replies import ChatReplies
from dovecote_http.answers.wishes import sampling_of
from dovecote_http.keys import BRIDGE, TENANT

if TYPE_CHECKING:
    from aiohttp import web


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answers one chat completion, in one piece or as a stream."""
    async with limited(request) as received_s:
        body = decode_chat(await request.read())
        call = read_call(request, body, "chatcmpl-", received_s)
        return await answer_call(call, partial(_wanted, call, body))


async def _wanted(call: Call, body: ChatBody) -> Wanted:
    request = await chat_request(call, body)
    replies = ChatReplies(call.answer, tells_usage=body.wants_usage)
    return Wanted((request,), replies, bool(body.stream))


async def chat_request(call: Call, body: ChatBody) -> Request:
    """The call in the engine's words. Raises: ApiError, and as `chat_prompt`."""
    return Request(
        id=call.answer.id,
        form=answer_form(body),
        prompt=await chat_prompt(call.http, body),
        max_tokens=body.token_limit,
        sampling=sampling_of(body),
        agent=call.agent,
        stop=body.stops,
        choices=body.n or 1,
        top_logprobs=body.ranked_tokens,
        priority=call.priority,
        salt=body.salt,
    )


async def chat_prompt(http: web.Request, body: ChatBody) -> tuple[int, ...]:
    """The conversation, rendered and tokenised, unless that is in vain.

    Raises: ApiError (400), EngineStopped, BadRequest, and what admission raises.
    """
    messages = template_messages(body)
    bridge = http.app[BRIDGE]
    bridge.screen(sum(len(str(message["content"])) for message in messages))
    salt = http[TENANT].salt(body.salt)
    return await bridge.render(messages, shown_tools(body), salt, continues=bool(body.begun))
