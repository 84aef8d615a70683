from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_engine import (
    BLOCK,
    CONTEXT,
    Answers,
    TinyLoaded,
    assert_idle,
    build,
    cached_tokens,
    drive,
    greedy,
    open_pool,
    reference,
)

from dovecote_cache import AgentBook
from dovecote_engine.errors import ContextExceeded
from dovecote_engine.request import Request, Sampling, TokenEvent, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote_engine.engine import Engine


def _prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


def _damage(path: Path, engine: Engine, block: int) -> None:
    """Flips a byte of a block's first keys, which the slab's first row still shows."""
    slab: Any = engine._rows
    keys = np.array(slab.keys[0][0, 0, block * BLOCK : (block + 1) * BLOCK])
    content = path.read_bytes()
    assert content.count(keys.tobytes()) == 1
    place = content.index(keys.tobytes()) + 200
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([content[place] ^ 0xFF]))


def test_an_answer_is_the_one_that_mlx_lm_gives() -> None:
    """Greedy tokens are those of the model with its own cache, and the text is theirs."""
    engine = build()
    prompt = _prompt(37)
    answer = drive(engine, greedy("r", prompt, 12))["r"]
    assert answer.tokens == reference(prompt, 12)
    assert answer.text == "".join(f"<{token}>" for token in answer.tokens)
    assert answer.finished is not None
    assert answer.finished.reason == "length"
    assert answer.finished.usage == Usage(37, 0, 12, kept_tokens=37)


def test_a_batch_answers_as_each_would_alone() -> None:
    """Rows join and leave around each other without a trace in anyone's tokens."""
    engine = build(max_rows=4, max_chunk_tokens=16)
    requests = [greedy(str(n), _prompt(1 + 13 * n, n), 3 + 5 * (n % 4)) for n in range(10)]
    answers = drive(engine, *requests)
    for request in requests:
        assert request.max_tokens is not None
        assert answers[request.id].tokens == reference(request.prompt, request.max_tokens)


def test_the_slab_grows_under_running_rows() -> None:
    """A row that outgrows the slab while others decode loses nothing, nor do they."""
    engine = build(max_rows=4)
    long, short = greedy("long", _prompt(250), 60), greedy("short", _prompt(9, 1), 70)
    answers = drive(engine, long, short)
    assert answers["long"].tokens == reference(long.prompt, 60)
    assert answers["short"].tokens == reference(short.prompt, 70)
    assert engine.status.capacity_tokens > 256


def test_a_chunk_may_fill_the_slab_to_the_brim() -> None:
    """A chunk that is all of the slab leaves its memory in the order that the pool reads."""
    engine = build(max_rows=1)
    prompt = _prompt(256)
    assert drive(engine, greedy("cold", prompt, 3))["cold"].tokens == reference(prompt, 3)
    hot = drive(engine, greedy("hot", prompt, 3))["hot"]
    assert (hot.tokens, cached_tokens(hot)) == (reference(prompt, 3), 255)


def test_a_repeated_prompt_is_restored() -> None:
    """A hot answer is the cold one, and all of the prompt but its last token is cached."""
    engine = build()
    prompt = _prompt(53)
    cold = drive(engine, greedy("cold", prompt, 9))["cold"]
    hot = drive(engine, greedy("hot", prompt, 9))["hot"]
    assert hot.tokens == cold.tokens == reference(prompt, 9)
    assert cached_tokens(hot) == 52
    assert hot.started is not None
    assert hot.started.cached_tokens == 52
    assert engine.status.counters.prefilled_tokens == 53 + 1


def test_a_next_turn_resumes_to_the_token() -> None:
    """The answer is cached too, but for its last token, whose K and V were never computed."""
    engine = build()
    prompt = _prompt(21)
    first = drive(engine, greedy("1", prompt, 12))["1"]
    turn = (*prompt, *first.tokens, *_prompt(6, 9))
    second = drive(engine, greedy("2", turn, 7))["2"]
    assert cached_tokens(second) == 21 + 11
    assert second.tokens == reference(turn, 7)


def test_a_prompt_that_diverges_inside_a_block_keeps_the_common_part() -> None:
    """The longest cached prefix is found to the token."""
    engine = build()
    prompt = _prompt(3 * BLOCK)
    drive(engine, greedy("1", prompt, 4))
    other = (*prompt[: 2 * BLOCK + 3], *((token + 1) % 100 for token in prompt[2 * BLOCK + 3 :]))
    answer = drive(engine, greedy("2", other, 5))["2"]
    assert cached_tokens(answer) == 2 * BLOCK + 3
    assert answer.tokens == reference(other, 5)


def test_a_restart_resumes(tmp_path: Path) -> None:
    """After the pool is closed and opened again, the answer is the same, from the cache."""
    prompt = _prompt(45)
    before = build(pool=open_pool(tmp_path / "pool"))
    cold = drive(before, greedy("r", prompt, 10))["r"]
    before.close()
    after = build(pool=open_pool(tmp_path / "pool"))
    warm = drive(after, greedy("r", prompt, 10))["r"]
    assert warm.tokens == cold.tokens
    assert cached_tokens(warm) == 44
    after.close()


def test_a_damaged_block_is_computed_again(tmp_path: Path) -> None:
    """Corruption costs time, never a wrong token; the rest of the chain before it is used."""
    prompt = _prompt(6 * BLOCK + 2)
    path = tmp_path / "pool"
    engine = build(pool=open_pool(path))
    drive(engine, greedy("cold", prompt, 6))
    _damage(path, engine, block=3)
    answer = drive(engine, greedy("hot", prompt, 6))["hot"]
    assert answer.tokens == reference(prompt, 6)
    assert cached_tokens(answer) == 3 * BLOCK
    assert engine.status.pool.miss_checksum >= 1
    again = drive(engine, greedy("again", prompt, 6))["again"]
    assert cached_tokens(again) == 6 * BLOCK + 1
    engine.close()


def test_two_agents_share_their_common_prefix() -> None:
    """The second agent restores what the first one sealed, while that one still runs."""
    engine = build(max_rows=2)
    common = _prompt(4 * BLOCK)
    answers = Answers()
    first = greedy("1", (*common, 7), 40, agent="one")
    engine.submit(first)
    while not answers["1"].tokens:
        answers.step(engine)
    second = greedy("2", (*common, 8, 9), 5, agent="two")
    engine.submit(second)
    while engine.wait(0):
        answers.step(engine)
    assert cached_tokens(answers["2"]) == 4 * BLOCK
    assert answers["1"].tokens == reference(first.prompt, 40)
    assert answers["2"].tokens == reference(second.prompt, 5)
    assert_idle(engine)


def test_one_agents_requests_run_in_order() -> None:
    """The second of an agent starts after its first has ended; other agents do not wait."""
    engine = build(max_rows=4)
    order = []
    for request in (
        greedy("a1", _prompt(9), 6, agent="a"),
        greedy("a2", _prompt(9), 6, agent="a"),
        greedy("b1", _prompt(5), 6, agent="b"),
    ):
        engine.submit(request)
    while engine.wait(0):
        order += [
            (type(event).__name__, event.request_id)
            for event in engine.step()
            if not isinstance(event, TokenEvent)
        ]
    assert order.index(("Finished", "a1")) < order.index(("Started", "a2"))
    assert order.index(("Started", "b1")) < order.index(("Finished", "a1"))


def test_the_book_points_at_the_longest_chain(tmp_path: Path) -> None:
    """A named agent's chain covers all that was computed for it."""
    engine = build(book=AgentBook.open(tmp_path / "agents.db"))
    drive(engine, greedy("1", _prompt(20), 10, agent="anna"), greedy("2", _prompt(4), 2))
    (agent,) = engine.agents.list()
    assert (agent.name, agent.model, agent.tokens) == ("anna", "tiny", 29)
    engine.close()


def test_an_end_token_ends_the_answer_without_text() -> None:
    """The token that ends an answer is counted and not shown."""
    prompt = _prompt(11)
    tokens = reference(prompt, 8)
    end = tokens.index(tokens[5])
    engine = build(TinyLoaded(eos_ids=frozenset({tokens[end]})))
    answer = drive(engine, greedy("r", prompt, 20))["r"]
    assert answer.tokens == tokens[:end]
    assert answer.finished is not None
    assert answer.finished.reason == "stop"
    assert answer.finished.usage.completion_tokens == end + 1


def test_an_answer_may_be_empty() -> None:
    """An end token as the very first one gives Started and Finished."""
    prompt = _prompt(11)
    engine = build(TinyLoaded(eos_ids=frozenset(reference(prompt, 1))))
    answer = drive(engine, greedy("r", prompt, 20))["r"]
    assert answer.started is not None
    assert (answer.tokens, answer.text) == ([], "")


def test_one_token_may_be_asked_for() -> None:
    """A request of one token never joins a decode."""
    engine = build()
    answer = drive(engine, greedy("r", (5,), 1))["r"]
    assert answer.tokens == reference((5,), 1)


def test_without_max_tokens_an_answer_ends_with_the_context() -> None:
    """Beyond the default reservation it goes on, up to the model's context."""
    engine = build(default_max_tokens=8)
    answer = drive(engine, Request("r", _prompt(480), None, Sampling(0.0)))["r"]
    assert answer.finished is not None
    assert answer.finished.reason == "length"
    assert answer.finished.usage.completion_tokens == CONTEXT - 480


def test_an_unbounded_answer_ends_where_the_slab_does() -> None:
    """A row without max_tokens cannot push others out: it ends at the budget."""
    rows = 2
    budget = rows * 256 * TinyLoaded().geometry.dense_bytes_per_token
    engine = build(slab_bytes=budget, default_max_tokens=8, max_rows=2)
    requests = [Request(str(n), _prompt(240, n), None, Sampling(0.0)) for n in range(rows)]
    answers = drive(engine, *requests)
    first = min(answers.values(), key=lambda each: len(each.tokens))
    assert first.finished is not None
    assert first.finished.reason == "length"
    assert 256 - 240 <= len(first.tokens) < 40
    assert engine.status.slab_bytes <= budget


def test_the_slab_budget_bounds_the_context() -> None:
    """A prompt that could never get a row is refused at the door."""
    budget = 256 * TinyLoaded().geometry.dense_bytes_per_token
    engine = build(slab_bytes=budget)
    assert engine.model.context_tokens == 256
    with pytest.raises(ContextExceeded):
        engine.submit(greedy("r", _prompt(250), 7))


@pytest.mark.parametrize("top_p", (1.0, 0.9))
def test_a_seed_gives_the_same_tokens_in_any_company(top_p: float) -> None:
    """Alone or in a batch, cold or hot, the same seed draws the same answer."""
    request = Request("r", _prompt(30), 15, Sampling(temperature=1.0, top_p=top_p, seed=11))
    alone = drive(build(), request)["r"].tokens
    engine = build(max_rows=3)
    others = [
        Request("s", _prompt(17, 4), 30, Sampling(1.0, 1.0, 11)),
        greedy("t", _prompt(3, 5), 30),
    ]
    assert drive(engine, *others, request)["r"].tokens == alone
    assert drive(engine, *others, request)["r"].tokens == alone
