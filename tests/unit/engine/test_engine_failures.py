from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import mlx.core as mx
import pytest
from tiny_engine import (
    BLOCK,
    Answers,
    TinyLoaded,
    TinyStream,
    TinyTokenizer,
    assert_idle,
    build,
    cached_tokens,
    drive,
    greedy,
    random_model,
    reference,
    tiny_model,
)

from dovecote_cache import AgentBook, BookUnusable, Lease, PoolIOError
from dovecote_engine.request import Request, Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# No other answer of these tests comes to this token by itself.
POISON = 95


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Isolated failures are logged with a trace; the tests need not show it."""
    with caplog.at_level(logging.CRITICAL):
        yield


def _poisoned() -> TinyLoaded:
    """The tiny model, whose embedding of one token is NaN."""
    model = random_model()
    model.model.embed_tokens.weight[POISON] = mx.full((64,), float("nan"))
    return TinyLoaded(model=model)


class Breaking:
    """The tiny model, until it is told to break in forwards of so many tokens."""

    breaks_at = range(0)

    def __call__(self, tokens: mx.array, cache: object = None) -> mx.array:
        if tokens.size in self.breaks_at:
            raise RuntimeError("out of memory")
        logits: mx.array = tiny_model()(tokens, cache)
        return logits


class BreakingTokenizer(TinyTokenizer):
    """Its third stream fails at the second token."""

    def __init__(self) -> None:
        self.streams = 0

    def text_stream(
        self, shown_ids: frozenset[int] = frozenset(), lead: Sequence[int] = ()
    ) -> TinyStream:
        self.streams += 1
        return BreakingStream() if self.streams == 2 else TinyStream()


class BreakingStream(TinyStream):
    """Fails at its second token."""

    def push(self, token: int) -> str:
        if self._held:
            raise ValueError("not a character")
        return super().push(token)


def test_numbers_that_are_not_finite_fail_their_request_alone() -> None:
    """NaN in one row reaches neither its neighbours, nor the row's next owner, nor the pool."""
    engine = build(_poisoned(), max_rows=2)
    poisoned = greedy("bad", (3, 5, POISON, 7, 9, 11, 13, 15, 17, 19), 30)
    neighbour = greedy("good", range(50), 40)
    answers = drive(engine, poisoned, neighbour)
    assert answers["bad"].failed is not None
    assert answers["good"].tokens == reference(neighbour.prompt, 40)
    assert engine.status.counters.failed == 1
    after = [greedy("x", range(4), 30), greedy("y", range(60), 30)]
    answers = drive(engine, *after)
    for request in after:
        assert answers[request.id].tokens == reference(request.prompt, 30)


def test_a_long_poisoned_prompt_is_found_before_it_is_sealed() -> None:
    """Chunks that are not the last are checked too: nothing of them gets into the pool."""
    engine = build(_poisoned(), max_chunk_tokens=2 * BLOCK)
    answers = drive(engine, greedy("bad", (POISON, *range(60)), 5))
    assert answers["bad"].failed is not None
    assert engine.status.pool.sealed_blocks == 0


def test_a_prefill_that_raises_fails_alone() -> None:
    """The rows that decode go on."""
    model = Breaking()
    engine = build(TinyLoaded(model=model), gap_ratio=1e6)
    answers = Answers()
    engine.submit(greedy("good", range(10), 20))
    while not answers["good"].tokens:
        answers.step(engine)
    model.breaks_at = range(2, 34)
    engine.submit(greedy("bad", range(40, 73), 20))
    while engine.wait(0):
        answers.step(engine)
    assert answers["bad"].failed is not None
    assert "RuntimeError" in answers["bad"].failed.message
    assert answers["good"].tokens == reference(tuple(range(10)), 20)
    assert_idle(engine)


def test_text_that_fails_fails_alone() -> None:
    """A detokenizer's error ends its own request."""
    engine = build(TinyLoaded(tokenizer=BreakingTokenizer()), max_rows=3)
    requests = [greedy(name, range(start), 12) for name, start in (("a", 5), ("b", 6), ("c", 7))]
    answers = drive(engine, *requests)
    assert answers["b"].failed is not None
    assert len(answers["b"].tokens) == 1
    assert answers["a"].tokens == reference(requests[0].prompt, 12)
    assert answers["c"].tokens == reference(requests[2].prompt, 12)


def test_a_sampler_that_fails_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in one row's drawing ends that row."""
    engine = build(max_rows=2)
    good = greedy("good", range(9), 12)
    bad = Request("bad", tuple(range(6)), 12, Sampling(seed=1))
    monkeypatch.setattr("dovecote_engine.sampling.sampler.mx.random.categorical", None)
    answers = drive(engine, good, bad)
    assert answers["bad"].failed is not None
    assert answers["good"].tokens == reference(good.prompt, 12)


def test_a_batch_that_fails_as_a_whole_does_not_end_the_engine() -> None:
    """Its rows fail, the slab starts anew, and the next requests are served, from the cache too."""
    model = Breaking()
    engine = build(TinyLoaded(model=model))
    answers = Answers()
    engine.submit(greedy("a", range(20), 20))
    engine.submit(greedy("b", range(30), 20))
    while not (answers["a"].tokens and answers["b"].tokens):
        answers.step(engine)
    model.breaks_at = range(1, 3)
    answers.step(engine)
    assert answers["a"].failed is not None
    assert answers["b"].failed is not None
    assert engine.status.slab_bytes == 0
    model.breaks_at = range(0)
    assert_idle(engine)
    again = drive(engine, greedy("c", range(20), 20))["c"]
    assert again.tokens == reference(tuple(range(20)), 20)
    assert cached_tokens(again) >= 2 * BLOCK


def test_a_pool_that_cannot_be_written_costs_only_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request goes on, is counted once, and the next one starts cold."""

    def fail(*_: object) -> int:
        raise PoolIOError(5, None)

    monkeypatch.setattr(Lease, "seal", fail)
    monkeypatch.setattr(Lease, "seal_short", fail)
    engine = build(max_chunk_tokens=16)
    prompt = tuple(range(50))
    assert drive(engine, greedy("1", prompt, 20))["1"].tokens == reference(prompt, 20)
    second = drive(engine, greedy("2", prompt, 20))["2"]
    assert cached_tokens(second) == 0
    assert engine.status.counters.seal_errors == 2


def test_a_book_that_cannot_be_written_costs_only_the_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The answer is complete, and the failure is counted."""
    book = AgentBook.open(tmp_path / "agents.db")

    def fail(*_: object) -> None:
        raise BookUnusable(tmp_path, "full")

    monkeypatch.setattr(AgentBook, "record", fail)
    engine = build(book=book)
    answer = drive(engine, greedy("1", range(20), 5, agent="anna"))["1"]
    assert answer.tokens == reference(tuple(range(20)), 5)
    assert engine.status.counters.book_errors == 1
    engine.close()
