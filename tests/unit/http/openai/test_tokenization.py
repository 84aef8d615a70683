"""Texts to tokens and back, and chats to prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dovecote_engine.errors import ContextExceeded
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service, Start


async def ask(service: Service, path: str, body: object) -> tuple[int, Any]:
    async with service.session.post(path, json=body) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("prefix", ("", "/v1"))
async def test_a_text_becomes_tokens_and_comes_back(service: Service, prefix: str) -> None:
    status, body = await ask(service, f"{prefix}/tokenize", {"content": "Hé"})
    assert (status, body) == (200, {"tokens": [72, 233]})
    assert await ask(service, f"{prefix}/detokenize", body) == (200, {"content": "Hé"})


async def test_pieces_that_are_no_characters_are_bytes(service: Service) -> None:
    """A token may be a part of a character."""
    _, body = await ask(service, "/tokenize", {"content": "Hé", "with_pieces": True})
    assert body == {"tokens": [{"id": 72, "piece": "H"}, {"id": 233, "piece": [0xC3]}]}


async def test_a_chat_becomes_the_prompt_that_it_would_have(service: Service) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    assert await ask(service, "/apply-template", chat) == (200, {"prompt": "Hi"})
    await ask(service, "/v1/chat/completions", chat)
    assert service.engine.requests[0].prompt == (72, 105)


async def test_tokenising_stays_off_the_event_loop(service: Service) -> None:
    """All of it is done in the threads that render prompts."""
    await ask(service, "/tokenize", {"content": "Hi"})
    await ask(service, "/detokenize", {"tokens": [72]})
    assert all(
        name.startswith("dovecote-render") for name in service.engine.model.tokenizer.threads
    )


async def test_a_text_that_no_prompt_could_hold_is_refused(start: Start) -> None:
    """It is not tokenised, since that would take long for everybody."""
    service = await start(Script(screens_out=ContextExceeded(2048, 9000)))
    status, body = await ask(service, "/tokenize", {"content": "x" * 9000})
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    assert not service.engine.model.tokenizer.threads


@pytest.mark.parametrize(
    ("path", "body", "param"),
    (
        ("/tokenize", {}, "content"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
    ),
)
async def test_a_wrong_body_is_refused_by_field(
    service: Service, path: str, body: object, param: str
) -> None:
    status, answer = await ask(service, path, body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_another_model_s_template_is_not_had(service: Service) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}], "model": "gpt-9"}
    assert (await ask(service, "/apply-template", chat))[0] == 404
