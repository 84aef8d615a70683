"""One call for answers, from its admission to its last byte, whatever kind of completion it is.

    requests --submit--> events --> one JSON, or a stream of chunks, of the choices of all requests

Admission comes before any header, so a refusal is a status. In a stream the header waits for
`Started`, so that its cache and timing lines are true, yet never longer than `keepalive_s`.

Does not know what a body asked for, nor how replies are written.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aiohttp import web

from dovecote_engine.request import ChoiceFinished, Failed, Finished, Started, TokenEvent, Usage
from dovecote_http.access.rate_limits import UNLIMITED
from dovecote_http.answers.identity import find_agent, find_priority
from dovecote_http.answers.merged_events import MergedEvents
from dovecote_http.answers.replies import Answer, Choice, FinishWord, Piece
from dovecote_http.answers.sse import SseStream
from dovecote_http.answers.timing import started_headers
from dovecote_http.errors import cancelled, generation_failed, model_not_found, timed_out
from dovecote_http.keys import (
    ALLOWANCE,
    BRIDGE,
    HISTORY,
    METRICS,
    REQUEST_ID,
    RUNNING,
    SETTINGS,
    STREAM,
    SWAPS,
    TENANT,
)
from dovecote_http.settings import ANY_MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from dovecote_engine.request import Event, Priority, Request
    from dovecote_http.answers.bodies import GenerationBody
    from dovecote_http.answers.replies import Replies

__all__ = ["Call", "Wanted", "answer_call", "limited", "read_call", "served_model"]

_NOTHING = Usage(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Call:
    """One validated call. `received_s` is on the monotonic clock."""

    http: web.Request
    answer: Answer
    agent: str | None
    priority: Priority
    received_s: float

    def observe(self, event: Event) -> None:
        """Counts an event. Raises: ApiError if it says that there will be no answer."""
        age_s = time.monotonic() - self.received_s
        self.http.app[METRICS].observe(event, age_s)
        self.http.app[HISTORY].observe(event, age_s)
        if isinstance(event, TokenEvent):
            self.http.get(ALLOWANCE, UNLIMITED).take_tokens(1)
        if isinstance(event, Failed):
            raise generation_failed(event)
        if isinstance(event, ChoiceFinished | Finished) and event.reason == "cancelled":
            raise cancelled()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be computed for a call, and how it is to be told. All have as many choices.

    `prefixes`: what each request's choices begin with, before anything that is computed.
    """

    requests: Sequence[Request]
    replies: Replies
    streams: bool
    prefixes: Sequence[str] = ("",)

    @property
    def choices(self) -> int:
        """Choices of each request."""
        return self.requests[0].choices

    @property
    def tells_logprobs(self) -> bool:
        """Whether log probabilities were asked for."""
        return self.requests[0].top_logprobs is not None

    def piece_of(self, event: TokenEvent | ChoiceFinished | Finished) -> Piece:
        """What the event adds to its choice."""
        logprobs = event.logprobs if self.tells_logprobs else None
        return Piece(event.text, event.reasoning, event.tool_calls, logprobs)

    def blank_choices(self) -> list[Choice]:
        """All choices before anything is computed."""
        return [
            Choice(prefix, [] if self.tells_logprobs else None)
            for prefix in self.prefixes
            for _ in range(self.choices)
        ]


@asynccontextmanager
async def limited(http: web.Request) -> AsyncIterator[float]:
    """Bounds the time that a call may take, its body included; gives the time of its arrival.

    Raises: ApiError (504).
    """
    limit_s = http.app[SETTINGS].request_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            yield time.monotonic()
    except TimeoutError as error:
        raise timed_out(limit_s) from error


def read_call(http: web.Request, body: GenerationBody, prefix: str, received_s: float) -> Call:
    """The call that a body makes; `prefix` begins its id. Raises: ApiError."""
    served = served_model(http, body.model)
    answer = Answer(f"{prefix}{uuid.uuid4().hex}", int(time.time()), served)
    agent, priority = find_agent(http.headers, body), find_priority(http.headers, body)
    if agent is not None:
        http[TENANT].agent(agent)  # refused before anything is computed for it
    return Call(http, answer, agent, priority, received_s)


def served_model(http: web.Request, asked: str | None) -> str:
    """The id of the served model, if that is what is asked for by one of its names.

    Raises: ApiError (404) for another one; DoorClosed if that is about to be served instead.
    """
    served, settings = http.app[BRIDGE].admitting().id, http.app[SETTINGS]
    if asked is None or asked == served or asked in settings.model_aliases:
        return served
    http.app[SWAPS].serve_on_request(asked, settings.drain_s)
    if ANY_MODEL in settings.model_aliases:
        return served
    raise model_not_found(asked, served)


async def answer_call(call: Call, prepare: Callable[[], Awaitable[Wanted]]) -> web.StreamResponse:
    """The answers. `prepare` tells what is wanted, once the call is listed as running.

    Raises: ApiError, and what `prepare` and admission raise: then no header has been sent.
    """
    app = call.http.app
    model = app[BRIDGE].model
    async with AsyncExitStack() as stack:
        tenant, allowance = call.http[TENANT], call.http.get(ALLOWANCE, UNLIMITED)
        entry = stack.enter_context(
            app[RUNNING].listed(call.answer.id, call.http[REQUEST_ID], tenant)
        )
        wanted = await prepare()
        entry.engine_ids = [request.id for request in wanted.requests]
        streams = [
            await stack.enter_async_context(await app[BRIDGE].submit(tenant.own(request), model))
            for request in wanted.requests
        ]
        allowance.take_tokens(sum(len(request.prompt) for request in wanted.requests))
        if entry.is_cancelled:
            raise cancelled()
        events = await stack.enter_async_context(MergedEvents(streams))
        return await (_stream if wanted.streams else _answer_whole)(call, wanted, events)


async def _answer_whole(call: Call, wanted: Wanted, events: MergedEvents) -> web.Response:
    choices = wanted.blank_choices()
    headers: dict[str, str] = {}
    usage = _NOTHING
    while not events.ended:
        number, event = await events.get()
        call.observe(event)
        match event:
            case Started():
                headers = headers or started_headers(event)
            case TokenEvent() | ChoiceFinished() | Finished():
                choice = choices[number * wanted.choices + event.choice]
                choice.add(wanted.piece_of(event))
                if not isinstance(event, TokenEvent):
                    choice.reason, choice.stop = _finish_word(event), event.stop
        if isinstance(event, Finished):
            usage = _sum(usage, event.usage)
    payload = wanted.replies.whole(choices, usage)
    return web.Response(body=payload, headers=headers, content_type="application/json")


async def _stream(call: Call, wanted: Wanted, events: MergedEvents) -> web.StreamResponse:
    sse = SseStream(call.http, wanted.replies.failure)
    call.http[STREAM] = sse
    usage = _NOTHING
    while not events.ended:
        number, event = await _next_event(call, wanted, events, sse)
        call.observe(event)
        first = number * wanted.choices
        match event:
            case Started():
                await sse.open(started_headers(event))
                await _send_openings(sse, wanted, number, event)
            case TokenEvent():
                await _send_piece(sse, wanted, first + event.choice, event)
            case ChoiceFinished() | Finished():
                await _send_piece(sse, wanted, first + event.choice, event)
                index, reason = first + event.choice, _finish_word(event)
                await sse.write(wanted.replies.finish(index, reason, event.stop))
        if isinstance(event, Finished):
            usage = _sum(usage, event.usage)
    await sse.end(wanted.replies.ending(usage))
    return sse.response


async def _send_openings(sse: SseStream, wanted: Wanted, number: int, started: Started) -> None:
    first, prefix = number * wanted.choices, wanted.prefixes[number]
    for index in range(first, first + wanted.choices):
        await sse.write(wanted.replies.opening(index, started))
        if prefix:
            await sse.write(wanted.replies.piece(index, Piece(prefix)))


async def _send_piece(
    sse: SseStream, wanted: Wanted, index: int, event: TokenEvent | ChoiceFinished | Finished
) -> None:
    piece = wanted.piece_of(event)
    if not piece.is_empty:
        await sse.write(wanted.replies.piece(index, piece))


async def _next_event(
    call: Call, wanted: Wanted, events: MergedEvents, sse: SseStream
) -> tuple[int, Event]:
    """The next event; the client hears something at least every `keepalive_s` until then."""
    while True:
        try:
            async with asyncio.timeout(call.http.app[SETTINGS].keepalive_s):
                return await events.get()
        except TimeoutError:
            await sse.open({})
            await sse.write(wanted.replies.sign_of_life())


def _finish_word(event: ChoiceFinished | Finished) -> FinishWord:
    return cast("FinishWord", event.reason)  # observe() has turned "cancelled" into an error


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.cached_tokens + other.cached_tokens,
        one.completion_tokens + other.completion_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
        one.kept_tokens + other.kept_tokens,
    )
