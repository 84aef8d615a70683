"""Runs: every block of every chain once, with exactly those whose chains have it."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from dovecote_cache import KEY_BYTES, Chain
from dovecote_engine.agents.runs import Run, runs_of


def chain(letters: str) -> Chain:
    """A chain whose blocks' keys tell all letters up to them, as chain hashes do."""
    keys = b"".join(
        letters[: end + 1].encode().rjust(KEY_BYTES, b".") for end in range(len(letters))
    )
    return Chain(keys, len(letters))


def runs(**chains: str) -> list[Run]:
    return runs_of([(name, chain(letters)) for name, letters in chains.items()])


def test_chains_that_begin_alike_share_a_run() -> None:
    """What all have comes first, then what some have, then what is each one's own."""
    assert runs(atlas="sqm", beryl="sq", cobra="so") == [
        Run(0, 1, ("cobra", "beryl", "atlas")),
        Run(1, 2, ("cobra",)),
        Run(1, 2, ("beryl", "atlas")),
        Run(2, 3, ("atlas",)),
    ]


def test_a_fork_adds_no_block() -> None:
    """Two names over one chain are one run."""
    assert runs(atlas="abc", fork="abc") == [Run(0, 3, ("atlas", "fork"))]


def test_agents_without_blocks_have_no_run() -> None:
    """An evicted agent owns nothing, and nobody at all owns nothing either."""
    assert runs() == []
    assert runs(gone="", atlas="a") == [Run(0, 1, ("atlas",))]


@given(st.lists(st.text("ab", max_size=6), max_size=8))
def test_every_block_is_in_exactly_one_run(texts: list[str]) -> None:
    """The runs are what counting the owners of each block would give."""
    owners: dict[str, set[str]] = defaultdict(set)
    for number, text in enumerate(texts):
        for end in range(1, len(text) + 1):
            owners[text[:end]].add(str(number))
    counted: dict[tuple[int, frozenset[str]], int] = defaultdict(int)
    for prefix, names in owners.items():
        counted[len(prefix) - 1, frozenset(names)] += 1
    found: dict[tuple[int, frozenset[str]], int] = defaultdict(int)
    named = [(str(number), chain(text)) for number, text in enumerate(texts)]
    result = runs_of(named)
    for run in result:
        assert run.blocks > 0
        for block in range(run.start, run.end):
            found[block, frozenset(run.owners)] += 1
    assert found == counted
    assert len(result) < max(1, 2 * len(texts))
