"""Agents of models with recurrent state, taken to another pool and back into a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_engine import (
    HYBRID_GEOMETRY,
    LOADED,
    Kind,
    build,
    cached_tokens,
    drive,
    greedy,
    open_pool,
    reference,
)

from dovecote_cache import AgentBook
from dovecote_engine.errors import BadArchive, UnknownAgent

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote_engine.engine import Engine

KINDS: tuple[Kind, ...] = ("hybrid", "parallel")
both = pytest.mark.parametrize("kind", KINDS)
ANSWER = 12
FIRST = tuple(int(token) for token in np.random.default_rng(1).integers(0, 100, 61))


def engine_of(kind: Kind, path: Path | None = None) -> Engine:
    pool = open_pool(path, geometry=HYBRID_GEOMETRY)
    return build(LOADED[kind](), pool, AgentBook.in_memory())


def exported(kind: Kind, archive: Path) -> tuple[int, ...]:
    """Writes the archive of an agent that had a turn; the prompt of its next one."""
    engine = engine_of(kind)
    answer = drive(engine, greedy("r", FIRST, ANSWER, "ada"))["r"]
    engine.agents.export("ada", archive)
    prompt = (*FIRST, *answer.tokens, 5, 6, 7)
    # What it would have been here: the answer that the importer has to give, from where it starts.
    stayed = drive(engine, greedy("r", prompt, ANSWER, "ada"))["r"]
    assert (cached_tokens(stayed), stayed.tokens) == (72, reference(prompt, ANSWER, kind))
    engine.close()
    return prompt


@both
@pytest.mark.parametrize("in_memory", (True, False))
def test_an_imported_agent_goes_on_where_it_stood(
    kind: Kind, in_memory: bool, tmp_path: Path
) -> None:
    """In an empty pool, with the tokens of one that stayed, and after a restart there."""
    archive, path = tmp_path / "ada", None if in_memory else tmp_path / "b.pool"
    prompt = exported(kind, archive)
    other = engine_of(kind, path)
    assert other.agents.import_(archive).cached_tokens == 72
    if path is not None:
        other.close()
        other = engine_of(kind, path)
    answer = drive(other, greedy("r", prompt, ANSWER, "ada"))["r"]
    assert (cached_tokens(answer), answer.tokens) == (72, reference(prompt, ANSWER, kind))
    other.close()


@both
def test_it_falls_back_as_at_home(kind: Kind, tmp_path: Path) -> None:
    """The checkpoint of its prompt travelled, too: for an answer that is asked for again."""
    exported(kind, tmp_path / "ada")
    other = engine_of(kind)
    other.agents.import_(tmp_path / "ada", "eve")
    prompt = (*FIRST, 1, 2, 3)
    answer = drive(other, greedy("r", prompt, ANSWER, "eve"))["r"]
    assert (cached_tokens(answer), answer.tokens) == (56, reference(prompt, ANSWER, kind))
    other.close()


def test_a_damaged_state_is_a_bad_archive(tmp_path: Path) -> None:
    """Nothing of it is imported."""
    archive = tmp_path / "ada"
    exported("hybrid", archive)
    content = archive.read_bytes()
    archive.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    other = engine_of("hybrid")
    with pytest.raises(BadArchive, match="checkpoint 1 is damaged") as raised:
        other.agents.import_(archive)
    assert raised.value.code == "bad_archive"
    with pytest.raises(UnknownAgent):
        other.agents.get("ada")
    assert other.status.pool.free == other.status.pool.frames
    other.close()


def test_states_are_refused_by_a_model_of_another_state(tmp_path: Path) -> None:
    """As if weights and blocks were the same and the library that runs them were not."""
    exported("hybrid", tmp_path / "ada")
    other = engine_of("parallel")
    with pytest.raises(BadArchive, match="its recurrent states have 1536 bytes") as raised:
        other.agents.import_(tmp_path / "ada")
    assert raised.value.code == "bad_archive"
    other.close()


def test_an_archive_without_states_is_imported_as_ever(tmp_path: Path) -> None:
    """One of a server that left them behind: the first turn is computed, and is right."""
    archive = tmp_path / "ada"
    engine = engine_of("hybrid")
    drive(engine, greedy("r", FIRST, ANSWER, "ada"))
    engine.agents.checkpoints = None
    engine.agents.export("ada", archive)
    engine.close()
    other = engine_of("hybrid")
    other.agents.import_(archive)
    answer = drive(other, greedy("r", (*FIRST, 1), ANSWER, "ada"))["r"]
    assert (cached_tokens(answer), answer.tokens) == (0, reference((*FIRST, 1), ANSWER, "hybrid"))
    other.close()
