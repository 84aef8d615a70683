"""Several choices, log probabilities and sampling wishes, over HTTP and by OpenAI's client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from dovecote_engine.request import Sampling
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start

HI = ChatCompletionUserMessageParam(role="user", content="Hi")
MODEL = "scripted/parrot"


def ask(**fields: object) -> dict[str, object]:
    return {"messages": [HI], **fields}


async def chunks(service: Service, **fields: object) -> list[dict[str, Any]]:
    """The JSON of all events of a stream before its [DONE]."""
    async with service.post(ask(stream=True, **fields)) as response:
        *events, done, rest = (await response.read()).decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


async def test_every_wish_reaches_the_engine(service: Service) -> None:
    """Sampling, stops, choices and log probabilities are what the client asked for."""
    wishes = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "seed": 3,
        "presence_penalty": -1,
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.1,
        "logit_bias": {"7": -100, "8": 2.5},
        "stop": ["a", "b"],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 5,
    }
    async with service.post(ask(**wishes)) as response:
        assert response.status == 200
    (request,) = service.engine.requests
    assert request.sampling == Sampling(
        0.5, 0.9, 3, 40, 0.1, 1.1, -1.0, 0.5, ((7, -100.0), (8, 2.5))
    )
    assert request.stop == ("a", "b")
    assert (request.choices, request.top_logprobs) == (2, 5)


@pytest.mark.parametrize(("wish", "stops"), (("x", ("x",)), (["x"], ("x",)), ([], ()), (None, ())))
async def test_a_stop_is_a_string_or_a_list(service: Service, wish: object, stops: object) -> None:
    async with service.post(ask(stop=wish)) as response:
        assert response.status == 200
    assert service.engine.requests[0].stop == stops


async def test_choices_have_dense_indices(start: Start) -> None:
    """Each with its message and reason; the usage sums them."""
    service = await start(Script(tail="!"))
    completion = await service.openai.chat.completions.create(model=MODEL, messages=[HI], n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert {choice.message.content for choice in completion.choices} == {"Hello world!"}
    assert {choice.finish_reason for choice in completion.choices} == {"stop"}
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2, 6)


async def test_streamed_choices_take_turns(service: Service) -> None:
    """Each begins with its role and ends with its reason; the usage comes once, at the end."""
    found = await chunks(service, n=2, stream_options={"include_usage": True})
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 4
    told = [chunk["choices"][0] for chunk in found[:-1]]
    assert [each["index"] for each in told] == [0, 1] * 4
    assert [each["delta"].get("content") for each in told[::2]] == ["", "Hello", " world", None]
    assert [each["finish_reason"] for each in told[-2:]] == ["stop", "stop"]


async def test_openais_stream_helper_assembles_choices(service: Service) -> None:
    """The client's own accumulator accepts the indices."""
    async with service.openai.chat.completions.stream(model=MODEL, messages=[HI], n=3) as stream:
        completion = await stream.get_final_completion()
    assert [choice.message.content for choice in completion.choices] == ["Hello world"] * 3


async def test_log_probabilities_have_openais_shape(service: Service) -> None:
    """Token, bytes, and the rivals; bytes that are no character show as U+FFFD."""
    completion = await service.openai.chat.completions.create(
        model=MODEL, messages=[HI], logprobs=True, top_logprobs=2
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [each.token for each in logprobs.content] == ["Hello", " world"]
    first = logprobs.content[0]
    assert (first.logprob, first.bytes) == (-0.5, list(b"Hello"))
    assert [(r.token, r.logprob, r.bytes) for r in first.top_logprobs] == [
        ("\ufffd0", -1.0, [0xFF, ord("0")]),
        ("\ufffd1", -2.0, [0xFF, ord("1")]),
    ]


async def test_log_probabilities_without_rivals(service: Service) -> None:
    """`top_logprobs` left out is 0."""
    async with service.post(ask(logprobs=True)) as response:
        body = await response.json()
    assert [each["top_logprobs"] for each in body["choices"][0]["logprobs"]["content"]] == [[], []]


async def test_streamed_log_probabilities_come_with_their_text(service: Service) -> None:
    """Each piece has those of its tokens; chunks without text have none."""
    found = await chunks(service, logprobs=True, top_logprobs=1)
    told = [chunk["choices"][0] for chunk in found]
    assert told[0]["logprobs"] is None
    assert [each["logprobs"]["content"][0]["token"] for each in told[1:3]] == ["Hello", " world"]
    assert told[3]["logprobs"] is None


async def test_a_lost_choice_fails_the_whole_answer(start: Start) -> None:
    """No answer has fewer choices than were asked for."""
    service = await start(Script(fails_after=1))
    async with service.post(ask(n=3)) as response:
        assert response.status == 500


async def test_a_client_that_leaves_ends_all_choices(start: Start) -> None:
    """They are one request for the engine, and it is cancelled."""
    service = await start(Script(holds_after=1))
    async with service.post(ask(n=3, stream=True)) as response:
        await response.content.readline()
        response.close()
    await service.until(lambda: service.engine.cancelled)
    assert service.engine.cancelled == [service.engine.requests[0].id]
