"""LiteLLM, which many programs speak through. It needs older versions of what others here need, so
it has an environment of its own: `python3 noxfile.py -s litellm`.
"""

from __future__ import annotations

from typing import Any

import pytest
from conversation import MODEL

pytestmark = pytest.mark.filterwarnings("default")  # its own warnings are not ours

litellm = pytest.importorskip("litellm", reason="has an environment of its own: nox -s litellm")

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}


def complete(url: str, **wishes: object) -> Any:
    """A chat completion through LiteLLM's own translation for OpenAI-compatible servers."""
    asked = {"messages": FRANCE, "temperature": 0, "max_tokens": 32, "num_retries": 0, **wishes}
    return litellm.completion(model=f"openai/{MODEL}", api_base=f"{url}/v1", api_key="any", **asked)


def test_an_answer_in_one_piece_and_streamed_is_the_same(server: str) -> None:
    answer = complete(server)
    assert "Paris" in answer.choices[0].message.content
    chunks = list(complete(server, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content


def test_cached_tokens_are_counted(server: str) -> None:
    """Under the name that programs behind LiteLLM read."""
    complete(server)
    assert complete(server).usage.prompt_tokens_details.cached_tokens > 0


def test_a_tool_is_called(server: str) -> None:
    wishes = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    answer = complete(server, **wishes, max_tokens=64)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_prompt_that_is_too_long_is_known_as_such(server: str) -> None:
    """Programs then shorten it, and do not try again as it is."""
    with pytest.raises(litellm.ContextWindowExceededError, match="maximum context length"):
        complete(server, messages=[{"role": "user", "content": "bird " * 20000}])


def test_another_model_is_not_found(server: str) -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(
            model="openai/gpt-9", messages=FRANCE, api_base=f"{server}/v1", api_key="any"
        )


def test_anthropic_s_protocol_is_spoken_through_it(server: str) -> None:
    answer = litellm.completion(
        model=f"anthropic/{MODEL}",
        messages=FRANCE,
        api_base=server,
        api_key="any",
        max_tokens=32,
        temperature=0,
    )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_responses_are_spoken_through_it(server: str) -> None:
    response = litellm.responses(
        model=f"openai/{MODEL}",
        input="Say hello.",
        api_base=f"{server}/v1",
        api_key="any",
        max_output_tokens=16,
    )
    assert response.usage.output_tokens > 0
