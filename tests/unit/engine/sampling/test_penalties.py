from __future__ import annotations

from collections import Counter

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from dovecote_engine.request import Sampling
from dovecote_engine.sampling.penalties import Penalties

LOGITS = np.array([2.0, -2.0, 0.5, -0.5, 0.0, 3.0], np.float32)
PROMPT = (0, 1)


def _applied(penalties: Penalties) -> npt.NDArray[np.float32]:
    return np.array(penalties.apply(mx.array(LOGITS)))


def _defined(sampling: Sampling, answer: list[int]) -> list[float]:
    """What the definition says, computed anew from the whole past."""
    counts, wanted = Counter(answer), []
    for token, logit in enumerate(LOGITS.tolist()):
        scale = sampling.repetition_penalty if token in {*PROMPT, *answer} else 1.0
        own = logit / scale if logit > 0 else logit * scale
        penalty = sampling.presence_penalty * (counts[token] > 0)
        penalty += sampling.frequency_penalty * counts[token]
        wanted.append(own - penalty + dict(sampling.logit_bias).get(token, 0.0))
    return wanted


@pytest.mark.parametrize(
    "sampling",
    (
        Sampling(repetition_penalty=1.3),
        Sampling(repetition_penalty=0.5),
        Sampling(presence_penalty=1.5),
        Sampling(presence_penalty=-2.0),
        Sampling(frequency_penalty=0.75),
        Sampling(logit_bias=((5, -100.0), (2, 100.0))),
        Sampling(
            repetition_penalty=1.2,
            presence_penalty=0.4,
            frequency_penalty=-0.3,
            logit_bias=((0, 3.0), (4, -1.0)),
        ),
    ),
    ids=str,
)
def test_what_is_updated_token_by_token_is_what_the_definition_says(sampling: Sampling) -> None:
    """After each token the logits are those that the whole past, looked at anew, would give."""
    penalties, answer = Penalties(sampling, PROMPT), list[int]()
    for token in (2, 5, 2, 0, 2, 4):
        np.testing.assert_allclose(_applied(penalties), _defined(sampling, answer), rtol=1e-5)
        penalties.note(token)
        answer.append(token)
    np.testing.assert_allclose(_applied(penalties), _defined(sampling, answer), rtol=1e-5)


def test_the_prompt_counts_for_the_repetition_penalty_alone() -> None:
    """Presence and frequency are about the answer, as OpenAI defines them."""
    answer_only = Penalties(Sampling(presence_penalty=1.0, frequency_penalty=1.0), PROMPT)
    np.testing.assert_array_equal(_applied(answer_only), LOGITS)
    assert _applied(Penalties(Sampling(repetition_penalty=2.0), PROMPT))[0] == 1.0


def test_defaults_are_neutral() -> None:
    """Nothing is made or changed for a row without penalties."""
    assert Penalties(Sampling(temperature=0.3, top_p=0.5, top_k=3), PROMPT).is_neutral
    assert not Penalties(Sampling(logit_bias=((1, 1.0),)), PROMPT).is_neutral
    np.testing.assert_array_equal(_applied(Penalties(Sampling(), PROMPT)), LOGITS)


def test_given_logits_are_not_modified() -> None:
    logits = mx.array(LOGITS)
    Penalties(Sampling(repetition_penalty=2.0, presence_penalty=1.0), PROMPT).apply(logits)
    np.testing.assert_array_equal(np.array(logits), LOGITS)
