"""What of a prompt is counted as kept: the tokens that the request computed and the pool has."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_engine import (
    BLOCK,
    GEOMETRY,
    LOADED,
    build,
    cached_tokens,
    drive,
    greedy,
    open_pool,
    recurrent,
)

from dovecote_engine.request import Request, Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from tiny_engine import Answer, Kind


def _prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


def kept_tokens(answer: Answer) -> int:
    assert answer.finished is not None
    return answer.finished.usage.kept_tokens


@pytest.mark.parametrize("kind", ("plain", "windowed"))
@pytest.mark.parametrize("count", (1, BLOCK - 1, BLOCK, 5 * BLOCK, 5 * BLOCK + 3))
def test_each_turn_keeps_the_new_part_of_its_prompt(kind: Kind, count: int) -> None:
    """What was found and what was kept add up to the prompt; the answer counts in neither."""
    engine = build(LOADED[kind]())
    history = _prompt(count)
    for turn in range(3):
        answer = drive(engine, greedy("r", history, 2 * BLOCK + 1))["r"]
        assert cached_tokens(answer) + kept_tokens(answer) == len(history)
        assert (cached_tokens(answer) > 0) is (turn > 0)
        history += (*answer.tokens, *_prompt(BLOCK + 2, turn + 1))


def test_of_a_prompt_that_comes_again_the_last_token_is_computed_again() -> None:
    """Its logits are wanted, so it is never taken from the pool, and counts as kept anew."""
    engine = build()
    prompt = _prompt(3 * BLOCK + 2)
    drive(engine, greedy("one", prompt, 3))
    again = drive(engine, greedy("two", prompt, 3))["two"]
    assert (cached_tokens(again), kept_tokens(again)) == (len(prompt) - 1, 1)


def test_a_part_of_a_block_that_was_found_is_not_kept_twice() -> None:
    """A prompt that leaves another one within a block keeps what is its own alone."""
    engine = build()
    prompt = _prompt(4 * BLOCK)
    drive(engine, greedy("one", prompt, 1))
    other = (*prompt[: 2 * BLOCK + 3], *_prompt(BLOCK, 1))
    answer = drive(engine, greedy("two", other, 1))["two"]
    assert (cached_tokens(answer), kept_tokens(answer)) == (2 * BLOCK + 3, BLOCK)


def test_choices_keep_their_prompt_once() -> None:
    engine = build()
    prompt = _prompt(2 * BLOCK + 3)
    answers = drive(engine, Request("r", prompt, 5, Sampling(temperature=0.0), choices=3))
    (finished,) = [each for each in answers.values() if each.finished is not None]
    assert kept_tokens(finished) == len(prompt)


@pytest.mark.parametrize("frames", (1, 3))
def test_a_pool_that_is_too_small_keeps_less(tmp_path: Path, frames: int) -> None:
    """As much as it has frames; then nothing more, since these are taken."""
    size = GEOMETRY.file_bytes("exact", frames * BLOCK)
    engine = build(pool=open_pool(tmp_path / "a.pool", size))
    prompt = _prompt(5 * BLOCK)
    first = drive(engine, greedy("one", prompt, 2))["one"]
    assert (cached_tokens(first), kept_tokens(first)) == (0, frames * BLOCK)
    second = drive(engine, greedy("two", prompt, 2))["two"]
    assert (cached_tokens(second), kept_tokens(second)) == (frames * BLOCK, 0)
    engine.close()


def test_what_could_not_be_written_was_not_kept(tmp_path: Path) -> None:
    """On a disk that takes no more."""
    engine = build(pool=open_pool(tmp_path / "a.pool"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        answer = drive(engine, greedy("r", _prompt(4 * BLOCK), 2))["r"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept_tokens(answer) == 0
    assert engine.status.counters.seal_errors == 1
    engine.close()


def test_a_model_that_cannot_be_cached_keeps_nothing() -> None:
    assert kept_tokens(drive(build(recurrent()), greedy("r", _prompt(20), 4))["r"]) == 0


def test_a_model_with_recurrent_state_keeps_whole_blocks() -> None:
    """The rest of a prompt is kept where the answer fills its block; what an earlier request has
    kept is not counted again where it has to be computed again.
    """
    engine = build(LOADED["hybrid"]())
    prompt = _prompt(3 * BLOCK + 3)
    first = drive(engine, greedy("one", prompt, 2))["one"]
    assert (cached_tokens(first), kept_tokens(first)) == (0, 3 * BLOCK)
    second = drive(engine, greedy("two", prompt, BLOCK))["two"]
    assert (cached_tokens(second), kept_tokens(second)) == (3 * BLOCK, 3)
    branch = (*prompt[: 2 * BLOCK], *_prompt(BLOCK, 1))
    third = drive(engine, greedy("three", branch, 2))["three"]
    assert (cached_tokens(third), kept_tokens(third)) == (0, BLOCK)
