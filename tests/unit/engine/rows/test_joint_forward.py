"""A chunk of a prompt and a decode step in one forward."""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny_engine import GEOMETRY, Answers, TinyLoaded, build, greedy, random_model, reference

from dovecote_engine.cpu.kernels import find_kernels
from dovecote_engine.rows.forward import BatchForward, Chunk
from dovecote_engine.rows.slab import Slab

pytestmark = pytest.mark.skipif(find_kernels() is None, reason="MLX runs the parts apart here")

TOKENS = [7 * n % 100 for n in range(90)]


def _forward(rows: int = 3) -> BatchForward:
    """Rows 0 and 1 hold 50 and 3 tokens, row 2 holds 20."""
    slab = Slab(GEOMETRY, 64 << 20)
    forward = BatchForward(random_model(), slab)
    slab.reserve(rows, 100)
    for row, length in enumerate((50, 3, 20)):
        assert forward.chunk(TOKENS[:length], row, 0)
    return forward


def _equal(one: mx.array, other: mx.array) -> bool:
    return bool(mx.array_equal(one, other).item())


@pytest.mark.parametrize("count", (1, 2, 13, 60))
def test_together_is_as_apart(count: int) -> None:
    """The same logits to the bit, of the rows and of the chunk, and the same K and V after it."""
    apart, together = _forward(), _forward()
    chunk = Chunk(TOKENS[20 : 20 + count], 2, 20)
    last = apart.last_chunk(chunk.tokens, chunk.row, chunk.start)
    mx.eval(last)
    decoded = apart.decode([5, 6], [50, 3])
    assert together.can_join
    joined = together.join(chunk, [5, 6], [50, 3])
    assert joined.is_sound
    assert _equal(joined.decoded, decoded)
    assert _equal(joined.last, last)
    assert _equal(
        together.decode([1, 2, 3], [51, 4, 20 + count]),
        apart.decode([1, 2, 3], [51, 4, 20 + count]),
    )


def test_a_chunk_that_is_not_finite_harms_no_row() -> None:
    """It is told apart, and the rows' logits are as without it."""
    forward, alone = _forward(), _forward()
    model = forward._model
    model.model.embed_tokens.weight[99] = mx.full((64,), float("nan"))
    joined = forward.join(Chunk([1, 99, 2], 2, 20), [5, 6], [50, 3])
    assert not joined.is_sound
    # The head is the embedding: only token 99's own logit is lost.
    assert _equal(joined.decoded[:, :99], alone.decode([5, 6], [50, 3])[:, :99])


def test_a_prompt_that_joins_costs_no_forward_of_its_own() -> None:
    """While a row decodes, steps that prefill another prompt run the model once."""
    forwards = []
    model = random_model()

    class Counting:
        """The tiny model, which notes the shape of each forward."""

        def __call__(self, tokens: mx.array, cache: object = None) -> mx.array:
            forwards.append(tokens.shape)
            logits: mx.array = model(tokens, cache)
            return logits

        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

    engine = build(TinyLoaded(model=Counting()))
    answers = Answers()
    engine.submit(greedy("running", range(10), 30))
    while not answers["running"].tokens:
        answers.step(engine)
    engine.submit(greedy("joining", range(40, 73), 5))
    while not answers["joining"].tokens:
        forwards.clear()
        answers.step(engine)
        assert len(forwards) <= 1
    while engine.wait(0):
        answers.step(engine)
    assert answers["running"].tokens == reference(tuple(range(10)), 30)
    assert answers["joining"].tokens == reference(tuple(range(40, 73)), 5)
