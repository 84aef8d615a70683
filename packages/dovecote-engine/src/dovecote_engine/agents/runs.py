"""Which agents share which blocks: the chains of all agents as runs of blocks with the same owners.

    atlas  |=== system ===|== question ==|= more =|
    beryl  |=== system ===|== question ==|             runs: system (atlas beryl cobra),
    cobra  |=== system ===|-- other -----|                   question (atlas beryl), more (atlas),
                                                             other (cobra)

Does not know the pool or the book: chains come as keys, which begin alike where prefixes are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dovecote_cache import Chain

__all__ = ["Run", "runs_of"]


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks [start, end) of the chains of all `owners`, and of nobody else's."""

    start: int
    end: int
    owners: tuple[str, ...]

    @property
    def blocks(self) -> int:
        """How many blocks they are."""
        return self.end - self.start


@dataclass(slots=True)
class _Open:
    """Blocks up to `end` that all chains from the `first` on have in common so far."""

    end: int
    first: int


def runs_of(chains: Iterable[tuple[str, Chain]]) -> list[Run]:
    """The runs of the named chains, each before those that go on from it.

    Every block of every chain is in exactly one run. n chains have fewer than 2n runs, found in
    O(n log n) comparisons: sorted by keys, chains that begin alike are neighbours.
    """
    ordered = sorted(chains, key=lambda named: named[1].keys)
    names = [name for name, _ in ordered]
    stack: list[_Open] = []
    found: list[tuple[int, Run]] = []

    def close_above(depth: int, past: int) -> int:
        """Closes what goes deeper than `depth`; the first chain that it was about."""
        first = past
        while stack and stack[-1].end > depth:
            top = stack.pop()
            first = top.first
            start = max(depth, stack[-1].end if stack else 0)
            found.append((first, Run(start, top.end, tuple(names[first:past]))))
        return first

    before: Chain | None = None
    for index, (_, chain) in enumerate(ordered):
        common = before.blocks_in_common(chain) if before is not None else 0
        first = close_above(common, index)
        if common > (stack[-1].end if stack else 0):
            stack.append(_Open(common, first))
        if chain.blocks > common:
            stack.append(_Open(chain.blocks, index))
        before = chain
    close_above(0, len(ordered))
    return [run for _, run in sorted(found, key=lambda entry: (entry[0], entry[1].start))]
