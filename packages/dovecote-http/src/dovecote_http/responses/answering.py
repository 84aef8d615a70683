"""POST /v1/responses, GET and DELETE /v1/responses/{id}.

A response goes on from `previous_response_id` by the conversation that is remembered under it. The
prompt is then what the client could have sent itself, and its chain is found in the pool as ever.

Does not know how answers are computed or sent.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.answers.calls import Call, Wanted, answer_call, limited, read_call
from dovecote_http.errors import invalid, response_not_found
from dovecote_http.keys import RESPONSES, TENANT
from dovecote_http.openai.chat import chat_request
from dovecote_http.responses.bodies import Response, TextShape
from dovecote_http.responses.body import Item, decode_response
from dovecote_http.responses.memory import Remembered
from dovecote_http.responses.replies import ResponseReplies
from dovecote_http.responses.translation import as_chat

if TYPE_CHECKING:
    from dovecote_http.answers.bodies import ChatBody
    from dovecote_http.answers.replies import Answer
    from dovecote_http.responses.body import ResponseBody

__all__ = ["create_response", "delete_response", "get_response"]

_NOTHING = Remembered(b"", (), 0)


class Deletion(Struct, frozen=True):
    """What a deletion did."""

    id: str
    object: str = "response"
    deleted: bool = True


async def create_response(request: web.Request) -> web.StreamResponse:
    """Answers with one response, in one piece or as a stream."""
    async with limited(request) as received_s:
        body = decode_response(await request.read())
        before = _before(request, body)
        chat = as_chat(body, before.items)
        call = read_call(request, chat, "resp_", received_s)
        return await answer_call(call, partial(_wanted, call, body, chat, before))


async def get_response(request: web.Request) -> web.Response:
    """A response that is remembered."""
    name = request.match_info["id"]
    found = request.app[RESPONSES].find(_owner(request), name)
    if found is None:
        raise response_not_found(name)
    return web.Response(body=found.payload, content_type="application/json")


async def delete_response(request: web.Request) -> web.Response:
    """Forgets a response. Those that went on from it do not need it."""
    name = request.match_info["id"]
    if not request.app[RESPONSES].forget(_owner(request), name):
        raise response_not_found(name)
    return web.Response(body=msgspec.json.encode(Deletion(name)), content_type="application/json")


async def _wanted(call: Call, body: ResponseBody, chat: ChatBody, before: Remembered) -> Wanted:
    request = await chat_request(call, chat)
    blank = _blank(call.answer, body, request.sampling.temperature, request.sampling.top_p)
    replies = ResponseReplies(blank, partial(_remember, call, body, before))
    return Wanted((request,), replies, bool(body.stream))


def _before(request: web.Request, body: ResponseBody) -> Remembered:
    """What the response goes on from. Raises: ApiError (400) if that is not remembered."""
    name = body.previous_response_id
    if name is None:
        return _NOTHING
    found = request.app[RESPONSES].find(_owner(request), name)
    if found is None:
        raise invalid(
            f"Previous response with id '{name}' not found.",
            "previous_response_id",
            "previous_response_not_found",
        )
    return found


def _remember(call: Call, body: ResponseBody, before: Remembered, response: Response) -> None:
    if body.store is False:
        return
    output = [msgspec.convert(msgspec.to_builtins(item), Item) for item in response.output]
    added = (*body.items, *output)
    known = Remembered(
        msgspec.json.encode(response),
        (*before.items, *added),
        before.conversation_bytes + len(msgspec.json.encode(added)),
    )
    call.http.app[RESPONSES].keep(_owner(call.http), response.id, known)


def _owner(request: web.Request) -> str:
    return request[TENANT].scope


def _blank(answer: Answer, body: ResponseBody, temperature: float, top_p: float) -> Response:
    """The response before anything is computed: what was asked for."""
    return Response(
        id=answer.id,
        created_at=answer.created,
        status="in_progress",
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata=body.metadata or {},
        model=answer.model,
        output=[],
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        store=body.store is not False,
        temperature=temperature,
        text=TextShape(body.format),
        tool_choice=body.tool_choice or "auto",
        tools=body.tools or [],
        top_p=top_p,
        user=body.user,
    )
