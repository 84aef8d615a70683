"""A turn's tokens do not tell where its history came from, with any codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tiny_engine import (
    BLOCK,
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dovecote_cache import CodecName
    from dovecote_engine.engine import Engine

CODECS: tuple[CodecName, ...] = ("exact", "f16", "q8", "k8v4", "q4")
TURNS, ANSWER = 3, 9


@dataclass(frozen=True)
class Place:
    """Where an engine keeps what it has, of which model and in which codec."""

    folder: Path
    kind: Kind
    codec: CodecName

    def engine(self) -> Engine:
        loaded = LOADED[self.kind]()
        pool = open_pool(self.folder / "a.pool", geometry=loaded.geometry, codec=self.codec)
        book = AgentBook.open(self.folder / "agents.db")
        return build(loaded, pool, book, max_rows=4)


def _text(start: int, count: int) -> tuple[int, ...]:
    return tuple((start + 7 * n) % 100 for n in range(count))


def _hot(engine: Engine, name: str, _: Place) -> tuple[Engine, str]:
    return engine, name


def _warm(engine: Engine, name: str, _: Place) -> tuple[Engine, str]:
    """Others used the rows, and its last block went to disk."""
    drive(engine, *(greedy(f"other {n}", _text(50 + n, 60), 5) for n in range(4)))
    engine._pool.flush()
    return engine, name


def _restarted(engine: Engine, name: str, place: Place) -> tuple[Engine, str]:
    engine.close()
    return place.engine(), name


def _forked(engine: Engine, name: str, _: Place) -> tuple[Engine, str]:
    engine.agents.fork(name, f"{name}'s fork")
    return engine, f"{name}'s fork"


def _shared(engine: Engine, name: str, _: Place) -> tuple[Engine, str]:
    """Somebody asks who was never there."""
    return engine, f"not {name}"


WAYS = (_hot, _warm, _restarted, _forked, _shared)


def _converse(place: Place, way: Callable[[Engine, str, Place], tuple[Engine, str]]) -> list[int]:
    """All the answers of a conversation whose every turn but the first comes that way."""
    place.folder.mkdir()
    engine, name = place.engine(), "ada"
    said, answers, found = _text(3, 5 * BLOCK + 3), [], 0
    for turn in range(TURNS):
        if turn:
            engine, name = way(engine, name, place)
        answer = drive(engine, greedy("turn", said, ANSWER, name))["turn"]
        assert cached_tokens(answer) == found
        if place.codec == "exact":
            assert answer.tokens == reference(said, ANSWER, place.kind)
        found = len(said) + ANSWER - 1
        answers += answer.tokens
        said = (*said, *answer.tokens, *_text(11 + turn, BLOCK + 5))
    engine.close()
    return answers


@pytest.mark.parametrize("kind", ("plain", "windowed"))
@pytest.mark.parametrize("codec", CODECS)
def test_hot_warm_restarted_forked_and_shared_turns_are_equal(
    tmp_path: Path, kind: Kind, codec: CodecName
) -> None:
    """To the token, and each finds the whole history; with `exact` they are a cold run's."""
    places = {way: Place(tmp_path / way.__name__, kind, codec) for way in WAYS}
    told = {way: _converse(place, way) for way, place in places.items()}
    assert all(answers == told[_hot] for answers in told.values()), told
