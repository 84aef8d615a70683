"""The clients that programs really use, each by its own words, against the real model."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic import Anthropic, BadRequestError
from conversation import BLOCK_TOKENS, MODEL, client_of
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr
from texts import SYSTEM

FRANCE = "What is the capital of France?"


@tool
def weather(city: str) -> str:
    """Tells the weather in a city."""
    return f"It rains in {city}."


class Town(BaseModel):
    """A town."""

    name: str = Field(max_length=20)


def anthropic_of(url: str) -> Anthropic:
    return Anthropic(base_url=url, api_key="any", max_retries=0, timeout=120)


def langchain_of(url: str, **wishes: object) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{url}/v1",
        api_key=SecretStr("any"),
        model=MODEL,
        temperature=0,
        max_retries=0,
        **wishes,  # type: ignore[arg-type]
    )


def test_anthropics_client_gets_an_answer(server: str) -> None:
    """In one piece and streamed it is the same, and the count says how long the prompt was."""
    with anthropic_of(server) as client:
        wishes: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": FRANCE}]}
        counted = client.messages.count_tokens(**wishes)
        wishes |= {"max_tokens": 32, "extra_body": {"temperature": 0}}
        message = client.messages.create(**wishes)
        with client.messages.stream(**wishes) as stream:
            streamed = stream.get_final_message()
    assert "Paris" in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert streamed.content[0].to_dict() == message.content[0].to_dict()
    usage = streamed.usage
    assert usage.cache_read_input_tokens == counted.input_tokens - 1
    assert (usage.input_tokens, usage.cache_creation_input_tokens) == (0, 1)


def test_anthropics_client_learns_which_stop_sequence_it_was(server: str) -> None:
    with anthropic_of(server) as client:
        message = client.messages.create(
            model=MODEL,
            max_tokens=32,
            messages=[{"role": "user", "content": FRANCE}],
            stop_sequences=["zebra", "Paris"],
            extra_body={"temperature": 0},
        )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "Paris")


def test_claude_code_shares_its_prompt_whatever_its_billing_line_says(server: str) -> None:
    """The second request finds all of the first one's prompt but the token that is left to do."""
    system = f"You are fond of herons. {SYSTEM}"

    def usage(billing: str) -> Any:
        with anthropic_of(server) as client:
            message = client.messages.create(
                model=MODEL,
                max_tokens=4,
                system=[
                    {"type": "text", "text": f"x-anthropic-billing-header: cch={billing};"},
                    {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}},
                ],
                messages=[{"role": "user", "content": "Hello."}],
            )
        return message.usage

    first, second = usage("4f3a1"), usage("99999")
    told = (first.input_tokens, first.cache_creation_input_tokens, first.cache_read_input_tokens)
    assert first.cache_read_input_tokens < BLOCK_TOKENS
    assert second.cache_read_input_tokens == sum(each or 0 for each in told) - 1


def test_anthropics_client_is_told_that_a_prompt_is_too_long(server: str) -> None:
    """In the words by which its programs know that they have to shorten it."""
    with anthropic_of(server) as client, pytest.raises(BadRequestError, match="prompt is too long"):
        client.messages.create(
            model=MODEL, max_tokens=4, messages=[{"role": "user", "content": "bird " * 20000}]
        )


def test_langchain_gets_and_streams_an_answer(server: str) -> None:
    """With the counts that its tracers read."""
    chat = langchain_of(server, max_tokens=24, stream_usage=True)
    message = chat.invoke([HumanMessage(FRANCE)])
    assert "Paris" in str(message.content)
    pieces = list(chat.stream([HumanMessage(FRANCE)]))
    assert "".join(str(piece.content) for piece in pieces) == message.content
    assert message.usage_metadata is not None
    counts = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert counts[-1]["total_tokens"] == message.usage_metadata["total_tokens"]
    assert counts[-1]["input_token_details"]["cache_read"] > 0


def test_langchain_calls_a_tool_and_answers_with_its_result(server: str) -> None:
    """A required call has the tool's name and arguments that its schema allows."""
    question = HumanMessage("What is the weather in Rome?")
    chat = langchain_of(server, max_tokens=64)
    calling = chat.bind_tools([weather], tool_choice="weather", parallel_tool_calls=False)
    called = calling.invoke([question])
    (call,) = called.tool_calls
    assert call["name"] == "weather"
    assert isinstance(call["args"]["city"], str)
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=str(call["id"]))
    assert chat.invoke([question, called, result]).content


def test_langchain_gets_structured_output(server: str) -> None:
    town = langchain_of(server, max_tokens=64).with_structured_output(Town).invoke(FRANCE)
    assert isinstance(town, Town)


def test_a_response_goes_on_in_the_chain_of_the_one_before(server: str) -> None:
    """The second turn sends its question alone, and finds the first turn in the pool."""
    with client_of(server) as client:
        first = client.responses.create(
            model=MODEL, input=FRANCE, temperature=0, max_output_tokens=32
        )
        second = client.responses.create(
            model=MODEL,
            previous_response_id=first.id,
            input="And of Italy?",
            temperature=0,
            max_output_tokens=32,
        )
    assert "Paris" in first.output_text
    assert first.usage is not None
    assert second.usage is not None
    history = first.usage.input_tokens + first.usage.output_tokens
    assert second.usage.input_tokens > history
    assert second.usage.input_tokens_details.cached_tokens >= history // 32 * 32


def test_a_response_can_be_parsed(server: str) -> None:
    with client_of(server) as client:
        response = client.responses.parse(
            model=MODEL, input=FRANCE, text_format=Town, max_output_tokens=64, temperature=0
        )
    assert isinstance(response.output_parsed, Town)
