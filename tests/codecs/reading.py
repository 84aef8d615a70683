"""How well a story is foretold after a context that came back from the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agreement import Agreement, agreement
from documents import story

if TYPE_CHECKING:
    from stored_rows import StoredRows

    from dovecote_engine.models.loader import LoadedModel

CONTEXTS = (2048, 4096)
TURN_TOKENS = 256
SCORED_TOKENS = 256


def measure_reading(rows: StoredRows, loaded: LoadedModel) -> dict[str, list[Agreement]]:
    """By the context, of each row: the reference first, then the codecs.

    A context is computed as a whole and stored; the shorter one also in turns that each build on
    what was stored of those before it, as an agent's history grows.
    """
    tokens = loaded.tokenizer.encode(story())
    found = {}
    for context in CONTEXTS:
        rows.compute(tokens[:context])
        rows.restore()
        found[f"{context:,}"] = _read_on(rows, tokens, context)
    context = CONTEXTS[0]
    rows.compute_in_turns(tokens[:context], TURN_TOKENS)
    name = f"{context // TURN_TOKENS} turns of {TURN_TOKENS}"
    return {**found, name: _read_on(rows, tokens, context)}


def _read_on(rows: StoredRows, tokens: tuple[int, ...], context: int) -> list[Agreement]:
    """Of the tokens that follow the context, each given those before it."""
    end = context + SCORED_TOKENS
    logits = rows.score(context, tokens[context:end])
    following = tokens[context + 1 : end + 1]
    return [agreement(logits[0], row, following) for row in logits]
