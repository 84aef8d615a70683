from __future__ import annotations

from dovecote_cache.directory import MODELS_LOCK, PARTIAL_MODEL
from dovecote_engine.models import conversion


def test_the_budget_knows_a_half_made_model_by_its_name() -> None:
    """Cache and engine do not import these names from each other, yet mean the same files."""
    assert (PARTIAL_MODEL, MODELS_LOCK) == (conversion._PARTIAL, conversion._LOCK)
