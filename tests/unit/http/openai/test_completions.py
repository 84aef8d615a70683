"""Text completions: prompts of every shape, echo, log probabilities, streams."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dovecote_engine.errors import BadRequest, ContextExceeded, Overloaded
from dovecote_engine.request import Sampling
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    import aiohttp

    from tests.unit.http.conftest import Service, Start

MODEL = "scripted/parrot"


async def post(service: Service, **body: object) -> tuple[int, dict[str, Any]]:
    """Status and body of a completion."""
    async with service.session.post("/v1/completions", json=body) as response:
        return response.status, await response.json()


async def _status(asked: aiohttp.client._RequestContextManager) -> int:
    async with asked as response:
        return response.status


async def refusal(service: Service, **body: object) -> dict[str, Any]:
    status, answer = await post(service, **body)
    assert status == 400
    error: dict[str, Any] = answer["error"]
    return error


async def test_a_completion_has_openais_shape(start: Start) -> None:
    """Every field of the body is there."""
    service = await start(Script(cached_tokens=1, tail="!"))
    status, body = await post(service, prompt="Hi")
    assert status == 200
    assert body.pop("id").startswith("cmpl-")
    assert isinstance(body.pop("created"), int)
    assert body.pop("usage")["total_tokens"] == 4
    assert body == {
        "object": "text_completion",
        "model": MODEL,
        "choices": [
            {"text": "Hello world!", "index": 0, "logprobs": None, "finish_reason": "stop"}
        ],
    }


async def test_the_request_reaches_the_engine_whole(service: Service) -> None:
    """Limit, sampling, stops, choices, log probabilities and agent; 16 tokens unless told."""
    await post(service, prompt="Hi")
    await post(
        service, prompt="Hi", max_tokens=3, temperature=0, stop="x", n=2, logprobs=4, user="u"
    )
    first, second = service.engine.requests
    assert (first.prompt, first.max_tokens, first.top_logprobs) == ((72, 105), 16, None)
    assert second.sampling == Sampling(temperature=0.0)
    assert (second.max_tokens, second.stop, second.choices) == (3, ("x",), 2)
    assert (second.top_logprobs, second.agent) == (4, "u")


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    (
        ("ab", [(97, 98)]),
        (["ab", "c"], [(97, 98), (99,)]),
        ([97, 98], [(97, 98)]),
        ([[97], [98, 99]], [(97,), (98, 99)]),
    ),
)
async def test_a_prompt_has_four_shapes(service: Service, prompt: object, tokens: object) -> None:
    """A text, texts, token ids, lists of token ids; each prompt has its choice, in order."""
    _, body = await post(service, prompt=prompt)
    assert [request.prompt for request in service.engine.requests] == tokens
    assert [choice["index"] for choice in body["choices"]] == [*range(len(body["choices"]))]
    assert len(body["choices"]) == len(service.engine.requests)


@pytest.mark.parametrize(
    ("fields", "param"),
    (
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": [[1], 5]}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "n": 17}, "n"),
        ({"prompt": "a", "model": 5}, "model"),
    ),
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    """A wrong type, a value out of range and an unsupported wish are 400s that name the field."""
    error = await refusal(service, **fields)
    assert error["param"] == param
    assert f"'{param}'" in error["message"]


async def test_neutral_wishes_pass(service: Service) -> None:
    """What asks for nothing, and what nobody knows."""
    status, _ = await post(
        service, prompt="a", suffix="", best_of=1, echo=False, logprobs=None, thing=[1]
    )
    assert status == 200


@pytest.mark.parametrize(
    ("error", "code"),
    (
        (ContextExceeded(2048, 5000), "context_length_exceeded"),
        (BadRequest("a token id is not in the model's vocabulary", "messages"), None),
    ),
)
async def test_the_engine_s_refusal_of_a_prompt_names_the_prompt(
    start: Start, error: BadRequest, code: str | None
) -> None:
    """There are no messages in a text completion."""
    service = await start(Script(refusal=error))
    told = await refusal(service, prompt="a")
    assert (told["param"], told["code"], told["message"]) == ("prompt", code, str(error))


async def test_echo_begins_each_choice_with_its_prompt(service: Service) -> None:
    """Given as text or as token ids."""
    _, body = await post(service, prompt=["ab", "c"], echo=True, n=2)
    assert [choice["text"] for choice in body["choices"]] == [
        "abHello world",
        "abHello world",
        "cHello world",
        "cHello world",
    ]
    _, body = await post(service, prompt=[97, 98], echo=True)
    assert body["choices"][0]["text"] == "abHello world"


async def test_log_probabilities_are_lists(service: Service) -> None:
    """Of equal length; the sampled token is among the top ones, and offsets count characters."""
    completion = await service.openai.completions.create(model=MODEL, prompt="Hi", logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["Hello", " world"]
    assert logprobs.token_logprobs == [-0.5, -0.5]
    assert logprobs.text_offset == [0, 5]
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"Hello": -0.5, "\ufffd0": -1.0, "\ufffd1": -2.0}


async def test_openais_client_reads_a_stream(service: Service) -> None:
    """The choices of all prompts, by index; the usage sums them, once."""
    stream = await service.openai.completions.create(
        model=MODEL,
        prompt=["a", "bc"],
        n=2,
        echo=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts, reasons, usages = [""] * 4, [""] * 4, []
    async for chunk in stream:
        assert chunk.object == "text_completion"
        usages += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert texts == ["aHello world"] * 2 + ["bcHello world"] * 2
    assert reasons == ["stop"] * 4
    (usage,) = usages
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 8)


async def test_streamed_offsets_go_on(service: Service) -> None:
    """Each chunk's log probabilities are of its own text, at its place in the whole."""
    body = {"prompt": "Hi", "logprobs": 0, "stream": True}
    async with service.session.post("/v1/completions", json=body) as response:
        *events, _, _ = (await response.read()).decode().split("\n\n")
    told = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    assert [each["text"] for each in told] == ["Hello", " world", ""]
    assert [each["logprobs"] and each["logprobs"]["text_offset"] for each in told] == [
        [0],
        [5],
        None,
    ]


async def test_one_refused_prompt_refuses_all(service: Service) -> None:
    """A 429 before any header; what was let in already is cancelled."""
    submit = service.engine.submit
    seen: list[object] = []

    def refuse_the_second(request: Any) -> None:
        seen.append(request)
        if len(seen) == 2:
            raise Overloaded("The queue is full.", 3)
        submit(request)

    service.engine.script.holds_before_start = True
    service.engine.submit = refuse_the_second  # type: ignore[method-assign]
    status, _ = await post(service, prompt=["a", "b", "c"], stream=True)
    assert status == 429
    await service.until(lambda: service.engine.cancelled)
    assert service.engine.cancelled == [service.engine.requests[0].id]


async def test_a_failed_prompt_fails_the_call(start: Start) -> None:
    """No answer has fewer choices than were asked for."""
    service = await start(Script(fails_after=1))
    status, _ = await post(service, prompt=["a", "b"])
    assert status == 500


async def test_a_client_that_leaves_ends_all_prompts(start: Start) -> None:
    """Every request of the call is cancelled."""
    service = await start(Script(holds_after=1))
    body = {"prompt": ["a", "b"], "stream": True}
    async with service.session.post("/v1/completions", json=body) as response:
        await response.content.readline()
        response.close()
    await service.until(lambda: len(service.engine.cancelled) == 2)
    assert {*service.engine.cancelled} == {each.id for each in service.engine.requests}


async def test_a_cancel_by_id_ends_all_prompts(start: Start) -> None:
    """By the id that the client gave; every request of the call is told to end."""
    service = await start(Script(holds_before_start=True))
    call = service.session.post(
        "/v1/completions", json={"prompt": ["a", "b", "c"]}, headers={"X-Request-ID": "mine"}
    )
    asked = asyncio.ensure_future(_status(call))
    await service.until(lambda: len(service.engine.requests) == 3)
    async with service.session.delete("/v1/requests/mine") as response:
        assert response.status == 200
    assert await asked == 499
    assert {*service.engine.cancelled} == {each.id for each in service.engine.requests}
