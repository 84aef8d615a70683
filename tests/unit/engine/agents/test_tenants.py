from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_engine import BLOCK, build, cached_tokens, drive, greedy, reference

PROMPT = tuple(range(5 * BLOCK + 3))
LATER = (*PROMPT, 7, 8)


@pytest.mark.parametrize("other", (b"", b"b"))
def test_chains_under_different_salts_never_share(other: bytes) -> None:
    """Neither whole blocks nor the common part of one; each salt's own history is found."""
    engine = build()
    drive(engine, replace(greedy("one", PROMPT, 2), salt=b"a"))
    foreign = drive(engine, replace(greedy("two", LATER, 4), salt=other))["two"]
    own = drive(engine, replace(greedy("three", LATER, 4), salt=b"a"))["three"]
    assert cached_tokens(foreign) == 0
    assert cached_tokens(own) == len(PROMPT)
    assert foreign.tokens == own.tokens == reference(LATER, 4)


def test_an_agent_finds_its_history_under_its_salt_alone() -> None:
    """Its name does not make up for the salt."""
    engine = build()
    drive(engine, replace(greedy("one", PROMPT, 2, "ada"), salt=b"a"))
    for salt, found in ((b"b", 0), (b"", 0), (b"a", len(PROMPT))):
        answer = drive(engine, replace(greedy("next", LATER, 1, "ada"), salt=salt))["next"]
        assert cached_tokens(answer) == found


def test_choices_of_one_request_share_under_its_salt() -> None:
    """Each choice seals below the blocks of the common prompt."""
    engine = build()
    request = replace(greedy("one", PROMPT, 3), salt=b"a", choices=2)
    drive(engine, request)
    again = drive(engine, replace(greedy("two", LATER, 3), salt=b"a"))["two"]
    assert cached_tokens(again) == len(PROMPT)
    assert again.tokens == reference(LATER, 3)
