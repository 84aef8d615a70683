"""Structured output and tools: the real model, OpenAI's client, real sockets."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

import pytest
from conversation import MODEL, client_of
from openai import BadRequestError, LengthFinishReasonError, pydantic_function_tool
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

QUESTION: ChatCompletionMessageParam = {
    "role": "user",
    "content": "What will the weather be in Paris for the next three days?",
}


class Sky(StrEnum):
    """What the sky may be."""

    clear = "clear"
    cloudy = "cloudy"


class Forecast(BaseModel):
    """A forecast."""

    city: str = Field(max_length=30)
    days: int = Field(ge=1, le=9)
    sky: Sky


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=30)
    days: int = Field(ge=1, le=9)


WEATHER = pydantic_function_tool(GetWeather, name="get_weather")
STOP = pydantic_function_tool(GetWeather, name="stop")


def ask(url: str, **wishes: Any) -> Any:
    given = {"model": MODEL, "messages": [QUESTION], "temperature": 0, "max_tokens": 120, **wishes}
    with client_of(url) as client:
        answer = client.chat.completions.create(**given)
        return list(answer) if given.get("stream") else answer


def arguments(call: Any) -> GetWeather:
    return GetWeather.model_validate_json(call.function.arguments)


def test_parse_gives_the_pydantic_object(server: str) -> None:
    """Whatever the temperature: 135 million parameters and a grammar."""
    for temperature in (0, 1):
        with client_of(server) as client:
            completion = client.chat.completions.parse(
                model=MODEL,
                messages=[QUESTION],
                response_format=Forecast,
                temperature=temperature,
                seed=3,
                max_tokens=120,
            )
        assert isinstance(completion.choices[0].message.parsed, Forecast)


def test_a_streamed_object_is_the_same(server: str) -> None:
    with client_of(server) as client:
        parsing: dict[str, Any] = {
            "model": MODEL,
            "messages": [QUESTION],
            "response_format": Forecast,
        }
        whole = client.chat.completions.parse(**parsing, temperature=0, max_tokens=120)
        with client.chat.completions.stream(**parsing, temperature=0, max_tokens=120) as stream:
            streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == whole.choices[0].message.parsed


def test_json_mode_gives_an_object_for_each_choice(server: str) -> None:
    """With several choices, a seed and log probabilities besides."""
    completion = ask(
        server,
        response_format={"type": "json_object"},
        messages=[{"role": "user", "content": "Describe a ship as JSON with name and size."}],
        n=3,
        seed=7,
        temperature=0.8,
        logprobs=True,
        max_tokens=200,
    )
    for choice in completion.choices:
        assert choice.message.content.startswith("{")
        assert choice.logprobs.content
    assert {choice.finish_reason for choice in completion.choices} <= {"stop", "length"}
    whole = [each.message.content for each in completion.choices if each.finish_reason == "stop"]
    assert whole
    assert all(isinstance(json.loads(text), dict) for text in whole)


def test_an_object_that_is_cut_off_says_so(server: str) -> None:
    """Then the client's parser raises what programs catch."""
    with client_of(server) as client, pytest.raises(LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL, messages=[QUESTION], response_format=Forecast, max_tokens=4
        )


@pytest.mark.parametrize(
    "choice", ("required", {"type": "function", "function": {"name": "get_weather"}})
)
def test_a_call_that_is_required_is_made_validly(server: str, choice: object) -> None:
    """Content is null, and the arguments are what the tool's schema says."""
    completion = ask(server, tools=[WEATHER, STOP], tool_choice=choice, parallel_tool_calls=False)
    (made,) = completion.choices
    assert (made.finish_reason, made.message.content) == ("tool_calls", None)
    (call,) = made.message.tool_calls
    assert call.function.name in ("get_weather", "stop")
    if choice != "required":
        assert call.function.name == "get_weather"
    assert arguments(call).days >= 1


def test_a_streamed_call_is_the_same(server: str) -> None:
    """The client's own accumulator comes to the call of the answer in one piece."""
    wishes = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    whole = ask(server, **wishes)
    fragments: list[Any] = []
    reasons = []
    for chunk in ask(server, **wishes, stream=True):
        fragments += chunk.choices[0].delta.tool_calls or ()
        reasons.append(chunk.choices[0].finish_reason)
    assert [reason for reason in reasons if reason] == ["tool_calls"]
    assert len(fragments) > 1
    assert [each.id for each in fragments[1:]] == [None] * (len(fragments) - 1)
    told = "".join(each.function.arguments for each in fragments)
    assert told == whole.choices[0].message.tool_calls[0].function.arguments
    assert fragments[0].id.startswith("call_")


def test_no_call_is_made_where_none_is_wanted(server: str) -> None:
    completion = ask(server, tools=[WEATHER], tool_choice="none", max_tokens=24)
    assert completion.choices[0].message.tool_calls is None
    assert completion.choices[0].message.content


def test_a_replayed_call_hits_to_the_end_of_its_answer(server: str) -> None:
    """The next turn, with the tool's result, finds all that was computed of this one."""
    wishes = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    first = ask(server, **wishes, temperature=1, seed=11)
    message = first.choices[0].message
    history = [
        QUESTION,
        cast("Any", message.model_dump(exclude_none=True)),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"},
    ]
    second = ask(server, tools=[WEATHER], messages=history, max_tokens=8)
    computed = first.usage.prompt_tokens + first.usage.completion_tokens - 1
    assert second.usage.prompt_tokens_details.cached_tokens >= computed


@pytest.mark.parametrize("temperature", (0, 1))
def test_a_chats_next_turn_hits_to_the_end_of_the_answer(server: str, temperature: float) -> None:
    """To the token: every K and V of prompt and answer that was computed is found."""
    question = {"role": "user", "content": "Invent three words for a new sort of bird."}
    first = ask(server, messages=[question], temperature=temperature, seed=5, max_tokens=48)
    history = [
        question,
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "And one more."},
    ]
    second = ask(server, messages=history, max_tokens=4)
    computed = first.usage.prompt_tokens + first.usage.completion_tokens - 1
    assert second.usage.prompt_tokens_details.cached_tokens >= computed


def test_a_schema_that_is_none_is_refused(server: str) -> None:
    """Before a stream begins, by name."""
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "objekt"}}}
    with pytest.raises(BadRequestError) as caught:
        ask(server, response_format=wanted, stream=True)
    assert caught.value.param == "response_format"
    broken = {"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/no"}}}
    with pytest.raises(BadRequestError) as caught:
        ask(server, tools=[WEATHER, broken])
    assert caught.value.param == "tools[1].function.parameters"
