"""POST /v1/completions: from raw prompts to requests. `calls.py` has what follows.

Each prompt is a request of its own; its choices follow those of the prompt before it.

Does not know how answers are computed or sent.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dovecote_engine.errors import BadRequest, ContextExceeded
from dovecote_engine.request import Request
from dovecote_http.answers.calls import Call, Wanted, answer_call, limited, read_call
from dovecote_http.answers.wishes import sampling_of
from dovecote_http.errors import invalid
from dovecote_http.keys import BRIDGE
from dovecote_http.openai.completion_body import CompletionBody, decode_completion, prompts_of
from dovecote_http.openai.completion_replies import TextReplies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from dovecote_http.bridge.bridge import EngineBridge


async def completions(request: web.Request) -> web.StreamResponse:
    """Answers one text completion, in one piece or as a stream."""
    async with limited(request) as received_s:
        body = decode_completion(await request.read())
        call = read_call(request, body, "cmpl-", received_s)
        try:
            return await answer_call(call, partial(_wanted, call, body))
        except BadRequest as error:
            if error.field != "messages":
                raise
            # The engine calls what a prompt is made of by the name that chats know.
            code = "context_length_exceeded" if isinstance(error, ContextExceeded) else None
            raise invalid(str(error), "prompt", code) from error


async def _wanted(call: Call, body: CompletionBody) -> Wanted:
    """The call in the engine's words: every prompt tokenised, unless that is in vain."""
    bridge, given = call.http.app[BRIDGE], prompts_of(body)
    bridge.screen(max((len(each) for each in given if isinstance(each, str)), default=0))
    prompts = [await _tokens(bridge, prompt) for prompt in given]
    requests = [_request(call, body, number, prompt) for number, prompt in enumerate(prompts)]
    prefixes = await _echoes(bridge, given) if body.echo else [""] * len(given)
    beginnings = [prefix for prefix in prefixes for _ in range(body.n or 1)]
    replies = TextReplies(call.answer, beginnings, tells_usage=body.wants_usage)
    return Wanted(requests, replies, bool(body.stream), prefixes)


def _request(call: Call, body: CompletionBody, number: int, prompt: tuple[int, ...]) -> Request:
    return Request(
        id=f"{call.answer.id}-{number}" if number else call.answer.id,
        prompt=prompt,
        max_tokens=body.max_tokens,
        sampling=sampling_of(body),
        agent=call.agent,
        stop=body.stops,
        choices=body.n or 1,
        top_logprobs=body.logprobs,
        priority=call.priority,
        salt=body.salt,
    )


async def _tokens(bridge: EngineBridge, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
    return await bridge.encode(prompt) if isinstance(prompt, str) else prompt


async def _echoes(bridge: EngineBridge, given: Sequence[str | tuple[int, ...]]) -> list[str]:
    return [prompt if isinstance(prompt, str) else await bridge.decode(prompt) for prompt in given]
