"""What clients do by habit, whatever they call: headers, retries, names, both prefixes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from dovecote_engine.errors import BadRequest, ContextExceeded, Draining, Overloaded
from dovecote_http import HttpSettings
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

MODEL = "scripted/parrot"
HI = ChatCompletionUserMessageParam(role="user", content="Hi")
GENERATING: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": [HI]},
    "/completions": {"prompt": "Hi"},
    "/messages": {"messages": [HI], "max_tokens": 9},
    "/responses": {"input": "Hi"},
}
"""What computes an answer, with the least body for it."""

AGENT_HEADERS = (
    "X-Agent-ID",
    "X-Session-Id",
    "x-session-affinity",
    "thread-id",
    "thread_id",
    "session-id",
    "session_id",
    "X-Claude-Code-Session-Id",
    "x-opencode-session",
    "X-OpenWebUI-Chat-Id",
    "x-grok-conv-id",
)


async def test_every_path_answers_with_and_without_the_prefix(service: Service) -> None:
    """Users type their base URL either way: the same handler is behind both."""
    handlers: dict[tuple[str, str], tuple[str, str]] = {}
    for route in service.app.router.routes():
        assert route.resource is not None
        name = (route.handler.__module__, route.handler.__qualname__)
        handlers[route.method, route.resource.canonical] = name
    prefixed = {key for key in handlers if key[1].startswith("/v1/")}
    pages = {key for key in handlers if key[1] == "/" or key[1].startswith("/web/")}
    bare = {(method, path.removeprefix("/v1")) for method, path in prefixed}
    assert len(prefixed) > 30
    assert handlers.keys() == prefixed | bare | pages
    for method, path in prefixed:
        assert handlers[method, path] == handlers[method, path.removeprefix("/v1")]


async def test_options_is_answered_on_every_path(service: Service) -> None:
    """Clients in browsers ask before anything else, and give up at a 405."""
    paths = {route.resource.canonical for route in service.app.router.routes() if route.resource}
    for path in sorted(paths):
        async with service.session.options(path.replace("{", "").replace("}", "")) as response:
            assert response.status == 204, path


@pytest.mark.parametrize("streams", (False, True))
@pytest.mark.parametrize("path", GENERATING)
async def test_every_protocol_tells_what_the_cache_did(
    start: Start, path: str, *, streams: bool
) -> None:
    """Where the tokens came from, why no more, how long what took, and the request's id."""
    service = await start(Script(cached_tokens=7, own_tokens=4, missed="diverged"))
    body = {**GENERATING[path], "stream": streams}
    headers = {"X-Request-ID": "mine"}
    async with service.session.post(f"/v1{path}", json=body, headers=headers) as response:
        await response.read()
        assert response.status == 200
        assert response.headers["X-Dovecote-Cache"] == (
            "hit; tokens=7; source=own+shared; own=4; missed=diverged; at=4"
        )
        assert response.headers["Server-Timing"].startswith("queue;dur=1.5, ")
        assert response.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("path", GENERATING)
async def test_every_protocol_knows_the_headers_that_name_a_conversation(
    service: Service, path: str
) -> None:
    for name in AGENT_HEADERS:
        headers = {name: f"of {name}"}
        async with service.session.post(path, json=GENERATING[path], headers=headers) as response:
            assert response.status == 200
        assert service.engine.requests[-1].agent == f"of {name}"


async def test_the_request_s_id_is_on_every_answer(start: Start) -> None:
    """Successes, streams, errors of router, body and engine, defects, and preflights."""
    service = await start(Script(fails_after=1))
    chat = GENERATING["/chat/completions"]
    for method, path, body, status in (
        ("GET", "/v1/models", None, 200),
        ("POST", "/v1/chat/completions", {**chat, "stream": True}, 200),
        ("POST", "/v1/chat/completions", chat, 500),
        ("POST", "/v1/chat/completions", {}, 400),
        ("POST", "/v1/chat/completions", {**chat, "model": "other"}, 404),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/models", None, 405),
        ("OPTIONS", "/v1/models", None, 204),
        ("GET", "/", None, 200),
    ):
        headers = {"X-Request-ID": "a.B_c-1"}
        async with service.session.request(method, path, json=body, headers=headers) as response:
            await response.read()
            assert response.status == status
            assert response.headers["x-request-id"] == "a.B_c-1"
    service.engine.script.refusal = Overloaded("Full.", 1)
    async with service.post(x_client_request_id="mine") as response:
        assert (response.status, response.headers["x-request-id"]) == (429, "mine")


async def test_fields_of_other_servers_are_ignored(service: Service) -> None:
    """What OpenAI's client can send by name, and what it passes on unseen."""
    completion = await service.openai.chat.completions.create(
        model=MODEL,
        messages=[HI],
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
        verbosity="low",
        parallel_tool_calls=True,
        prompt_cache_key="family",
        safety_identifier="someone",
        extra_body={"prompt_cache_options": {"mode": "x"}, "id_slot": 3, "cache_prompt": True},
    )
    assert completion.choices[0].message.content == "Hello world"
    assert service.engine.requests[0].agent == "family"


async def test_the_newer_token_limit_wins_for_openais_client(service: Service) -> None:
    create = service.openai.chat.completions.create
    completion = await create(model=MODEL, messages=[HI], max_tokens=9, max_completion_tokens=1)
    assert service.engine.requests[0].max_tokens == 1
    assert completion.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    (
        (BadRequest("No.", "seed"), openai.BadRequestError, None),
        (ContextExceeded(2048, 9000), openai.BadRequestError, "context_length_exceeded"),
        (Overloaded("Full.", 1), openai.RateLimitError, "overloaded"),
        (Draining("Bye.", 1), openai.InternalServerError, "draining"),
        (ZeroDivisionError("secret"), openai.InternalServerError, "internal_error"),
    ),
)
@pytest.mark.parametrize("streams", (False, True))
async def test_refusals_become_the_classes_that_programs_catch(
    start: Start, refusal: Exception, kind: type[openai.APIStatusError], code: str, *, streams: bool
) -> None:
    """Before any header, so streams raise them where they are made."""
    service = await start(Script(refusal=refusal))
    with pytest.raises(kind) as caught:
        await service.openai.chat.completions.create(model=MODEL, messages=[HI], stream=streams)
    assert caught.value.code == code
    assert caught.value.request_id is not None
    assert "secret" not in caught.value.message
    if code == "context_length_exceeded":
        assert caught.value.type == "invalid_request_error"
        assert "maximum context length is 2048 tokens" in caught.value.message


async def test_what_is_not_to_be_retried_is_not(start: Start) -> None:
    """A request that took too long would only take as long again: the client asks once."""
    service = await start(Script(holds_after=1), HttpSettings(request_timeout_s=0.1))
    patient = service.openai.with_options(max_retries=3)
    with pytest.raises(openai.InternalServerError):
        await patient.chat.completions.create(model=MODEL, messages=[HI])
    assert len(service.engine.requests) == 1


async def test_what_the_engine_lost_is_sent_again_and_answered(start: Start) -> None:
    """A 500 is retried by the client itself; the whole conversation comes with it."""
    service = await start(Script(fails_after=1))
    patient = service.openai.with_options(max_retries=2)
    asked = asyncio.ensure_future(patient.chat.completions.create(model=MODEL, messages=[HI]))
    await service.until(lambda: service.engine.failed)
    service.engine.script.fails_after = None
    assert (await asked).choices[0].message.content == "Hello world"
    first, *_, last = service.engine.requests
    assert first.prompt == last.prompt


@pytest.mark.parametrize("path", ("/chat/completions", "/completions"))
async def test_a_stream_that_falls_silent_is_kept_alive(start: Start, path: str) -> None:
    """In its middle too, as while other requests compute their prompts."""
    service = await start(Script(holds_after=1), HttpSettings(keepalive_s=0.02))
    body = {**GENERATING[path], "stream": True}
    async with service.session.post(path, json=body) as response:
        await response.content.readuntil(b"Hello")
        await response.content.readuntil(b": keep-alive\n\n")
        await response.content.readuntil(b": keep-alive\n\n")
        service.engine.release()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", GENERATING)
async def test_no_more_follows_an_error_in_a_stream(start: Start, path: str) -> None:
    """The last event tells it, under the key that OpenAI's and Anthropic's clients look for."""
    service = await start(Script(fails_after=1))
    async with service.session.post(path, json={**GENERATING[path], "stream": True}) as response:
        *_, last, end = (await response.read()).split(b"\n\n")
    assert end == b""
    assert b'"error":{' in last
    assert b"The row had to be given up." in last
