"""Laws of sampling: a row's tokens depend on its request alone."""

from __future__ import annotations

from dataclasses import replace

from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_engine import VOCABULARY, Answer, build, drive

from dovecote_engine.request import Request, Sampling

_TEXT = tuple((5 + 13 * n) % VOCABULARY for n in range(60))

_biases = st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100), max_size=3)
_samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 1e-6]),
    seed=st.integers(-(1 << 63), (1 << 64) - 1),
    top_k=st.sampled_from([0, 1, 5, VOCABULARY - 1]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.1, 10.0]),
    presence_penalty=st.sampled_from([0.0, -2.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5, 2.0]),
    logit_bias=_biases.map(lambda biases: tuple(biases.items())),
)
_requests = st.builds(
    Request,
    id=st.just("r"),
    prompt=st.integers(1, len(_TEXT)).map(lambda length: _TEXT[:length]),
    max_tokens=st.integers(1, 12),
    sampling=_samplings,
    choices=st.sampled_from([1, 1, 1, 2, 3]),
    top_logprobs=st.sampled_from([None, None, 0, 3]),
    stop=st.sampled_from([(), ("<1>", "2><"), ("<7",)]),
)


def _outcomes(request: Request, answers: dict[str, Answer]) -> list[tuple[object, ...]]:
    names = [request.id, *(f"{request.id}/{choice}" for choice in range(1, request.choices))]
    found = [answers[name] for name in names]
    return [(each.tokens, each.text, each.reason) for each in found]


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(_requests, min_size=2, max_size=6), st.integers(3, 8), st.integers(4, 64))
def test_a_batch_changes_nobody_s_tokens(
    wanted: list[Request], max_rows: int, chunk_tokens: int
) -> None:
    """Every seeded request gives alone what it gives in any batch of mixed sampling settings."""
    requests = [replace(request, id=f"r{n}") for n, request in enumerate(wanted)]
    together = drive(build(max_rows=max_rows, max_chunk_tokens=chunk_tokens), *requests)
    for request in requests:
        alone = drive(build(), request)
        assert _outcomes(request, together) == _outcomes(request, alone)


@settings(max_examples=examples(30), deadline=None)
@given(_requests)
def test_log_probabilities_change_nothing_and_fit_the_tokens(request: Request) -> None:
    """Asked for or not, the tokens are the same; each that is shown comes with its own."""
    request = replace(request, stop=(), choices=1)
    without = drive(build(), replace(request, top_logprobs=None))["r"]
    asked = drive(build(), replace(request, top_logprobs=2))["r"]
    assert (asked.tokens, asked.text) == (without.tokens, without.text)
    assert [each.chosen.token for each in asked.logprobs] == asked.tokens
    for each in asked.logprobs:
        assert len(each.top) == 2
        assert each.top[0].logprob >= each.top[1].logprob
        assert each.chosen.logprob <= each.top[0].logprob <= 0
