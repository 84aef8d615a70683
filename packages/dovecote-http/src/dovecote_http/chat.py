"""POST /v1/chat/completions: from a body to a request, and from its events to an answer.

    body -> ChatCall -> rendered prompt -> admission -> events -> one JSON, or a stream of chunks

Admission comes before any header, so a refusal is a status. In a stream the header waits for
`Started`, so that its cache and timing lines are true, yet never longer than `keepalive_s`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aiohttp import web
from dovecote_engine.request import Failed, Finished, Request, Sampling, Started, TokenEvent

from dovecote_http.bodies import ChatBody, decode_chat, template_messages
from dovecote_http.errors import generation_failed, model_not_found, timed_out, unavailable
from dovecote_http.identity import find_agent
from dovecote_http.keys import BRIDGE, METRICS, SETTINGS, STREAM
from dovecote_http.replies import Answer, ChunkWriter, FinishWord
from dovecote_http.sse import SseStream
from dovecote_http.timing import started_headers

if TYPE_CHECKING:
    from dovecote_engine.request import Event

    from dovecote_http.bridge import EventStream

_SEED_MASK = 2**64 - 1
"""Clients send signed 64-bit seeds; random keys are made from unsigned ones."""


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One validated call. `received_s` is on the monotonic clock."""

    http: web.Request
    body: ChatBody
    answer: Answer
    agent: str | None
    received_s: float

    async def engine_request(self) -> Request:
        """The call in the engine's words: rendered and tokenised."""
        messages = template_messages(self.body)
        return Request(
            id=self.answer.id,
            prompt=await self.http.app[BRIDGE].render(messages),
            max_tokens=self.body.token_limit,
            sampling=_sampling(self.body),
            agent=self.agent,
        )

    def observe(self, event: Event) -> None:
        """Counts an event. Raises: ApiError if it says that there will be no answer."""
        self.http.app[METRICS].observe(event, time.monotonic() - self.received_s)
        if isinstance(event, Failed):
            raise generation_failed(event.message)
        if isinstance(event, Finished) and event.reason == "cancelled":
            raise unavailable("The request was cancelled.", "cancelled")


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answers one chat completion, in one piece or as a stream."""
    limit_s = request.app[SETTINGS].request_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            return await _complete(await _read_call(request))
    except TimeoutError as error:
        raise timed_out(limit_s) from error


async def _read_call(request: web.Request) -> ChatCall:
    received_s = time.monotonic()
    body = decode_chat(await request.read())
    served = request.app[BRIDGE].model.id
    if body.model not in (None, served):
        raise model_not_found(str(body.model), served)
    answer = Answer(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), served)
    return ChatCall(request, body, answer, find_agent(request.headers, body), received_s)


async def _complete(call: ChatCall) -> web.StreamResponse:
    wanted = await call.engine_request()
    async with await call.http.app[BRIDGE].submit(wanted) as events:
        if call.body.stream:
            return await _stream_answer(call, events)
        return await _whole_answer(call, events)


def _sampling(body: ChatBody) -> Sampling:
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=None if body.seed is None else body.seed & _SEED_MASK,
    )


async def _whole_answer(call: ChatCall, events: EventStream) -> web.Response:
    texts: list[str] = []
    headers: dict[str, str] = {}
    while True:
        event = await events.get()
        call.observe(event)
        match event:
            case Started():
                headers = started_headers(event)
            case TokenEvent():
                texts.append(event.text)
            case Finished():
                text = "".join((*texts, event.text))
                payload = call.answer.whole(text, _finish_word(event), event.usage)
                return web.Response(body=payload, headers=headers, content_type="application/json")


async def _stream_answer(call: ChatCall, events: EventStream) -> web.StreamResponse:
    stream = SseStream(call.http)
    call.http[STREAM] = stream
    chunks = ChunkWriter(call.answer)
    while True:
        event = await _next_event(call, events, stream)
        call.observe(event)
        match event:
            case Started():
                await stream.open(started_headers(event))
                await stream.send(chunks.role())
            case TokenEvent(text=text) if text:
                await stream.send(chunks.text(text))
            case Finished():
                await _finish(call, stream, chunks, event)
                return stream.response


async def _next_event(call: ChatCall, events: EventStream, stream: SseStream) -> Event:
    """The next event; the client hears something at least every `keepalive_s` until then."""
    while True:
        try:
            async with asyncio.timeout(call.http.app[SETTINGS].keepalive_s):
                return await events.get()
        except TimeoutError:
            await stream.open({})
            await stream.comment()


async def _finish(
    call: ChatCall, stream: SseStream, chunks: ChunkWriter, finished: Finished
) -> None:
    if finished.text:
        await stream.send(chunks.text(finished.text))
    await stream.send(chunks.finish(_finish_word(finished)))
    if call.body.wants_usage:
        await stream.send(chunks.usage(finished.usage))
    await stream.done()


def _finish_word(finished: Finished) -> FinishWord:
    return cast("FinishWord", finished.reason)  # observe() has turned "cancelled" into an error
