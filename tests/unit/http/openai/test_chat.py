"""Chat completions in one piece, by hand and by OpenAI's client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from openai import BadRequestError, NotFoundError, RateLimitError
from openai.types.chat import ChatCompletionAssistantMessageParam, ChatCompletionUserMessageParam

from dovecote_engine.errors import BadRequest, Overloaded
from dovecote_engine.request import Sampling
from dovecote_http import HttpSettings
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

HI = ChatCompletionUserMessageParam(role="user", content="Hi")


async def test_an_answer_has_openais_shape(start: Start) -> None:
    """Every field of the body is there, with the cached tokens inside the prompt's."""
    service = await start(Script(cached_tokens=1, kept_tokens=1, tail="!"))
    async with service.post() as response:
        body = await response.json()
        assert response.content_type == "application/json"
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": "scripted/parrot",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 2,
            "total_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_headers_tell_what_the_cache_did(start: Start) -> None:
    """Timings are milliseconds, and a hit says how many tokens."""
    service = await start(Script(cached_tokens=1856))
    async with service.post() as response:
        assert response.headers["Server-Timing"] == (
            "queue;dur=1.5, restore;dur=20.0, prefill;dur=300.0"
        )
        assert response.headers["X-Dovecote-Cache"] == "hit; tokens=1856; source=shared"
    service.engine.script.cached_tokens = 0
    async with service.post() as response:
        assert response.headers["X-Dovecote-Cache"] == "miss"


@pytest.mark.parametrize("path", ("/v1/chat/completions", "/chat/completions"))
@pytest.mark.parametrize("content_type", ("application/json", "text/plain", ""))
async def test_prefix_and_content_type_do_not_matter(
    service: Service, path: str, content_type: str
) -> None:
    """JSON is read as JSON whatever it is called, with and without /v1."""
    data = b'{"messages":[{"role":"user","content":"Hi"}]}'
    headers = {"Content-Type": content_type}
    async with service.session.post(path, data=data, headers=headers) as response:
        assert response.status == 200


async def test_the_request_reaches_the_engine_whole(service: Service) -> None:
    """Prompt, limit, sampling and agent are what the client asked for."""
    wishes = {"max_completion_tokens": 1, "temperature": 0, "top_p": 0.5, "seed": -1}
    async with service.post(
        {"messages": [{"role": "user", "content": "Hi"}], "user": "u", **wishes},
        X_Session_Id="s",
    ) as response:
        body = await response.json()
    (request,) = service.engine.requests
    assert request.prompt == (72, 105)
    assert request.max_tokens == 1
    assert request.sampling == Sampling(temperature=0.0, top_p=0.5, seed=2**64 - 1)
    assert request.agent == "s"
    assert request.id == body["id"]
    assert body["choices"][0]["finish_reason"] == "length"


async def test_defaults_are_openais(service: Service) -> None:
    """Without wishes the temperature is 1, nothing is cut, and nobody is the agent."""
    async with service.post():
        pass
    (request,) = service.engine.requests
    assert (request.sampling, request.max_tokens, request.agent) == (Sampling(), None, None)


async def test_rendering_stays_off_the_event_loop(service: Service) -> None:
    """The template and the tokenizer run in threads of their own."""
    async with service.post():
        pass
    (name,) = service.engine.model.tokenizer.threads
    assert name.startswith("dovecote-render")


async def test_a_template_that_refuses_is_a_400(service: Service) -> None:
    """What the tokenizer finds wrong is the caller's fault, by field."""
    service.engine.model.tokenizer.error = BadRequest("Roles must alternate.", "messages")
    async with service.post() as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "messages"


async def test_a_client_that_leaves_cancels_its_request(start: Start) -> None:
    """A closed connection reaches the engine, also while nothing has been sent yet."""
    service = await start(Script(holds_before_start=True))
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    body = b'{"messages":[{"role":"user","content":"Hi"}]}'
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    await service.until(lambda: service.engine.requests)
    writer.close()
    await service.until(lambda: service.engine.cancelled)
    assert service.engine.cancelled == [service.engine.requests[0].id]


async def test_a_request_that_takes_too_long_is_cancelled(start: Start) -> None:
    """The time limit is a 504 that clients do not retry, and frees the row."""
    service = await start(Script(holds_after=1), HttpSettings(request_timeout_s=0.5))
    async with service.post() as response:
        assert response.status == 504
        assert response.headers["x-should-retry"] == "false"
        assert (await response.json())["error"]["code"] == "request_timeout"
    await service.until(lambda: service.engine.cancelled)


async def test_openais_client_reads_an_answer(start: Start) -> None:
    """The typed client finds text, usage and the request id."""
    service = await start(Script(cached_tokens=2))
    completion = await service.openai.chat.completions.create(
        model="scripted/parrot", messages=[HI], user="me", store=False
    )
    assert completion.choices[0].message.content == "Hello world"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 2
    assert completion._request_id is not None


async def test_an_answer_goes_on_from_the_last_message_if_asked_to(service: Service) -> None:
    """By the fields that other servers have for it; without them the message is one like others."""
    begun: ChatCompletionAssistantMessageParam = {"role": "assistant", "content": "Oh,"}
    for extra in ({"add_generation_prompt": False, "continue_final_message": True}, {}):
        completion = await service.openai.chat.completions.create(
            model="scripted/parrot", messages=[HI, begun], extra_body=extra
        )
        assert completion.choices[0].message.content == "Hello world"
    assert service.engine.model.tokenizer.continued == [True, False]
    assert [request.form.begun for request in service.engine.requests] == ["Oh,", ""]


async def test_openais_client_raises_its_own_errors(service: Service) -> None:
    """Each status becomes the class that programs catch."""
    create = service.openai.chat.completions.create
    with pytest.raises(NotFoundError) as missing:
        await create(model="gpt-9", messages=[HI])
    assert missing.value.code == "model_not_found"
    assert "scripted/parrot" in missing.value.message
    with pytest.raises(BadRequestError) as bad:
        await create(model="scripted/parrot", messages=[HI], n=30)
    assert bad.value.param == "n"


async def test_openais_client_waits_and_tries_again(service: Service) -> None:
    """A refusal with Retry-After is retried by the client itself, and succeeds once it is over."""
    service.engine.script.refusal = Overloaded("The queue is full.", retry_after_s=0.01)
    with pytest.raises(RateLimitError):
        await service.openai.chat.completions.create(model="scripted/parrot", messages=[HI])
    patient = service.openai.with_options(max_retries=5)
    waiting = asyncio.ensure_future(
        patient.chat.completions.create(model="scripted/parrot", messages=[HI])
    )
    await service.until(lambda: service.engine.refused == 2)
    service.engine.script.refusal = None
    assert (await waiting).choices[0].message.content == "Hello world"
