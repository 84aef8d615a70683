"""Agents chatting with the real model over real sockets."""

from __future__ import annotations

from typing import Any

from conversation import BLOCK_TOKENS, MODEL, Conversation, client_of
from texts import FOLLOW_UP, OPENINGS, SYSTEM


def test_the_model_knows_the_capital_of_france(server: str) -> None:
    """The answer comes from the real model: it is right, ends by itself and is counted."""
    answer = Conversation(server, max_tokens=48).ask("What is the capital of France?")
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert 1 < answer.completion_tokens < 48


def test_max_tokens_ends_an_answer(server: str) -> None:
    answer = Conversation(server, max_tokens=5).ask("Tell me a long story about the sea.")
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 5)


def test_two_agents_each_go_on_where_they_were(server: str) -> None:
    """Taking turns, each agent's second turn finds its own history up to the last block."""
    agents = {name: Conversation(server, name, SYSTEM) for name in ("atlas", "cook")}
    first = {name: agent.ask(OPENINGS[name]) for name, agent in agents.items()}
    second = {name: agent.ask_streaming(FOLLOW_UP) for name, agent in agents.items()}
    for name in agents:
        assert second[name].cached_tokens >= first[name].block_tokens > 0
        assert second[name].cached_tokens < second[name].prompt_tokens


def test_agents_share_an_equal_beginning(server: str) -> None:
    """The second agent's first turn already finds the common system prompt, to the token."""
    system, question = f"You are fond of owls. {SYSTEM}", "Which bird do you like?"
    first = Conversation(server, "one", system, max_tokens=1).ask("Good morning.")
    second = Conversation(server, "two", system, max_tokens=1).ask(question)
    with client_of(server) as client:
        told: Any = client.post("/tokenize", cast_to=object, body={"content": system})
    assert first.cached_tokens < BLOCK_TOKENS
    assert second.cached_tokens >= len(told["tokens"]) > BLOCK_TOKENS


def test_a_seed_makes_sampling_repeatable(server: str) -> None:
    def sample(seed: int) -> str | None:
        with client_of(server) as client:
            completion = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "Invent a name for a ship."}],
                temperature=1.0,
                top_p=0.95,
                seed=seed,
                max_tokens=16,
            )
        return completion.choices[0].message.content

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_the_model_is_listed(server: str) -> None:
    with client_of(server) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).owned_by == "dovecote"
