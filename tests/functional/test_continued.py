"""Answers that go on from a beginning that the client wrote: the real model and its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from conversation import MODEL, client_of

if TYPE_CHECKING:
    from anthropic.types import Message

QUESTION = {"role": "user", "content": "Describe a dove as a JSON object, with name and colour."}
BEGUN = {"role": "assistant", "content": '{"name": "dove", "col'}
CONTINUES: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}


def ask(url: str, last: dict[str, Any], **wishes: Any) -> Message:
    """Anthropic's client, at temperature 0."""
    options = {"temperature": 0, **wishes.pop("extra_body", {})}
    with Anthropic(base_url=url, api_key="any", max_retries=0, timeout=120) as client:
        message: Message = client.messages.create(
            **{"model": MODEL, "max_tokens": 16, "messages": [QUESTION, last], **wishes},
            extra_body=options,
        )
    return message


def text_of(message: Message) -> str:
    (block,) = message.content
    assert block.type == "text"
    return block.text


def chat(client: openai.OpenAI, messages: list[dict[str, str]], **extra: Any) -> tuple[str, Any]:
    """OpenAI's client: the text of 12 tokens, and the counts."""
    wishes: dict[str, Any] = {"model": MODEL, "temperature": 1, "seed": 3, "max_tokens": 12}
    completion = client.chat.completions.create(**{**wishes, "messages": messages, **extra})
    return completion.choices[0].message.content or "", completion.usage


def test_an_answer_goes_on_where_its_beginning_ends(server: str) -> None:
    """In both protocols as a raw completion of the same prompt does; each computes it anew."""
    wishes: dict[str, Any] = {"max_tokens": 16, "temperature": 0}
    body: dict[str, Any] = {"messages": [QUESTION, BEGUN], **CONTINUES}
    with client_of(server) as client:
        prompt = client.post("/apply-template", body=body, cast_to=dict[str, str])["prompt"]
        salted: dict[str, Any] = {"cache_salt": "a"}
        raw = client.completions.create(model=MODEL, prompt=prompt, **wishes, extra_body=salted)
        salted = {**CONTINUES, "cache_salt": "b"}
        said, _ = chat(client, [QUESTION, BEGUN], **wishes, extra_body=salted)
    assert prompt.endswith(BEGUN["content"])
    assert said == raw.choices[0].text
    assert text_of(ask(server, BEGUN, extra_body={"cache_salt": "c"})) == raw.choices[0].text
    assert raw.choices[0].text.startswith("our")


def test_an_answer_that_was_cut_off_goes_on_from_all_that_was_computed(server: str) -> None:
    """Its last token is all there is to do; and the next turn finds both parts."""
    with client_of(server) as client:
        text, first = chat(client, [QUESTION])
        begun = {"role": "assistant", "content": text}
        rest, second = chat(client, [QUESTION, begun], extra_body=CONTINUES)
        whole = {"role": "assistant", "content": text + rest}
        _, third = chat(client, [QUESTION, whole, QUESTION])
    found = [each.prompt_tokens_details.cached_tokens for each in (second, third)]
    assert found[0] == first.prompt_tokens + 12 - 1 == second.prompt_tokens - 1
    assert found[1] >= second.prompt_tokens + 12 - 1


def test_a_beginning_is_counted_as_it_is_computed(server: str) -> None:
    with Anthropic(base_url=server, api_key="any", max_retries=0) as client:
        counted = client.messages.count_tokens(model=MODEL, messages=[QUESTION, BEGUN])  # type: ignore[list-item]
    usage = ask(server, BEGUN).usage
    told = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    assert counted.input_tokens == sum(each or 0 for each in told)


@pytest.mark.parametrize(
    ("content", "wishes", "word"),
    (
        ("The ", {}, "trailing whitespace"),
        (
            "{",
            {
                "tools": [{"name": "f", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "any"},
            },
            "call a tool",
        ),
        (
            "{",
            {
                "extra_body": {
                    "output_config": {
                        "format": {"type": "json_schema", "schema": {"type": "object"}}
                    }
                }
            },
            "response_format",
        ),
    ),
)
def test_what_cannot_be_continued_is_refused(
    server: str, content: str, wishes: dict[str, Any], word: str
) -> None:
    """White space at the end, and what is asked of the whole of an answer."""
    with pytest.raises(anthropic.BadRequestError, match=word):
        ask(server, {"role": "assistant", "content": content}, **wishes)


def test_openais_client_is_told_which_field_is_missing(server: str) -> None:
    """As by vLLM, whose fields they are."""
    with client_of(server) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=[QUESTION, BEGUN],  # type: ignore[list-item]
            extra_body={"continue_final_message": True},
        )
    assert caught.value.param == "continue_final_message"
