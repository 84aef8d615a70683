"""POST /v1/messages and /v1/messages/count_tokens: from a body to a request, or to a number.

Does not know how answers are computed or sent.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_engine.errors import ContextExceeded
from dovecote_http.answers.calls import Call, Wanted, answer_call, limited, read_call, served_model
from dovecote_http.anthropic.body import decode_count, decode_message
from dovecote_http.anthropic.replies import MessageReplies
from dovecote_http.anthropic.translation import as_chat, prompt_as_chat
from dovecote_http.errors import invalid
from dovecote_http.keys import BRIDGE
from dovecote_http.openai.chat import chat_prompt, chat_request

if TYPE_CHECKING:
    from dovecote_http.answers.bodies import ChatBody

__all__ = ["count_tokens", "messages"]


class TokenCount(Struct, frozen=True):
    """How long a prompt is."""

    input_tokens: int


async def messages(request: web.Request) -> web.StreamResponse:
    """Answers one message, in one piece or as a stream."""
    async with limited(request) as received_s:
        body = as_chat(decode_message(await request.read()))
        call = read_call(request, body, "msg_", received_s)
        try:
            return await answer_call(call, partial(_wanted, call, body))
        except ContextExceeded as error:
            raise invalid(_too_long(error), "messages", "context_length_exceeded") from error


async def count_tokens(request: web.Request) -> web.Response:
    """The length of the prompt that a message would have, rendered and tokenised as it would be."""
    body = decode_count(await request.read())
    served_model(request, body.model)
    prompt = await chat_prompt(request, prompt_as_chat(body))
    return web.Response(
        body=msgspec.json.encode(TokenCount(len(prompt))), content_type="application/json"
    )


async def _wanted(call: Call, body: ChatBody) -> Wanted:
    """The call in the engine's words, with no more tokens than the context has room for.

    These clients always ask for thousands of tokens, and are told how an answer ended.
    """
    request = await chat_request(call, body)
    prompt = len(request.prompt)
    room = call.http.app[BRIDGE].model.context_tokens - prompt
    asked = request.max_tokens or room
    is_cut = 0 < room < asked
    replies = MessageReplies(call.answer, prompt, is_cut=is_cut)
    request = replace(request, max_tokens=room) if is_cut else request
    return Wanted((request,), replies, bool(body.stream))


def _too_long(error: ContextExceeded) -> str:
    """The words by which Claude Code knows that it has to shorten the conversation."""
    return f"prompt is too long: {error.asked_tokens} tokens > {error.limit_tokens} maximum"
