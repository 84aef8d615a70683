"""Parsers of what others wrote, over fixed inputs; `nox -s fuzz_parsers` looks for more."""

from __future__ import annotations

import pytest
from examples import examples
from parsers import TARGETS, mutations, seeds


@pytest.mark.parametrize("name", tuple(TARGETS))
def test_a_parser_returns_or_refuses_whatever_it_is_given(name: str) -> None:
    """The seeds, every beginning of the short ones, and a few hundred mutations of them."""
    for raw in seeds(name):
        for end in range(min(len(raw), 400) + 1):
            TARGETS[name](raw[:end])
        TARGETS[name](raw)
    for raw in mutations(name, examples(400), seed=1):
        TARGETS[name](raw)


@pytest.mark.parametrize("name", tuple(TARGETS))
def test_the_first_seed_of_each_parser_is_understood(name: str) -> None:
    """So mutations of it get behind the first check."""
    assert TARGETS[name](seeds(name)[0])
