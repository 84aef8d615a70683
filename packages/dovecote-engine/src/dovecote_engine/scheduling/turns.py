"""Whose turn it is: who of the waiting gets a row, and whose prompt gets the next chunk.

Every agent is a flow, and so is every request without an agent. Prefill is shared by deficit round
robin with the round taken out: each flow has an account of the prompt tokens that were computed for
it, and the next turn goes to the flow that is owed most, which is the one whose account is lowest.

T1  While two flows of one class both have chunks to compute, neither is given more than one chunk
    more than the other.
T2  Rest earns nothing. A request without an agent starts at the mean of the accounts, as if it had
    been there all the time; an agent that comes (back) just below the lowest, so that its first
    chunk is the next one. It does so once: what it gets stays on its account until the others have
    caught up.
T3  Interactive before background; but of PATIENCE choices in a row between the two, one goes to
    the background.
T4  Requests without an agent take at most half of the rows while an agent's interactive request
    waits; background ones at most half while an interactive one waits or runs.
T5  When requests without an agent, or in the background, hold more than half of the rows and all
    rows are taken, one more row is there for an agent's interactive request: a flood, however long
    its answers, makes no agent wait for one of them to end.

Does not know chunks, lengths or the slab. Engine thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Sequence as Ordered

    from dovecote_engine.request import Request
    from dovecote_engine.scheduling.sequence import Sequence

PATIENCE = 8


def flow_of(request: Request) -> str:
    """The account on which the request's prefill is booked."""
    return f"request {request.id}" if request.agent is None else f"agent {request.agent}"


class PrefillAccounts:
    """Prompt tokens computed for each flow, as far as they still matter (T1, T2)."""

    def __init__(self) -> None:
        self._computed: dict[str, float] = {}
        self._mean = 0.0
        self._present = 0

    def meet(self, present: Iterable[Sequence]) -> None:
        """Opens accounts for who has come, and closes those that the others have caught up with."""
        flows = {flow_of(each.request): each for each in present}
        self._present = len(flows)
        known = [self._computed[flow] for flow in flows if flow in self._computed]
        lowest = min(known, default=self._mean)
        self._computed = {
            flow: computed
            for flow, computed in self._computed.items()
            if flow in flows or computed > lowest
        }
        for flow, sequence in flows.items():
            opening = self._mean if is_anonymous(sequence) else lowest - 1
            self._computed.setdefault(flow, opening)

    def of(self, sequence: Sequence) -> float:
        """The account of the sequence's flow, which `meet` has met."""
        return self._computed[flow_of(sequence.request)]

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """Books a chunk that is about to be computed."""
        self._computed[flow_of(sequence.request)] += tokens
        self._mean += tokens / self._present


class Patience:
    """How often the background was passed over (T3)."""

    def __init__(self) -> None:
        self._passed_over = 0

    def choose(self, candidates: Ordered[Sequence]) -> Ordered[Sequence]:
        """Those of the class whose turn it is. Counts only if both classes are there."""
        background = [each for each in candidates if is_background(each)]
        interactive = [each for each in candidates if not is_background(each)]
        if not background or not interactive:
            return candidates
        self._passed_over = (self._passed_over + 1) % PATIENCE
        return interactive if self._passed_over else background


class Turns:
    """The choice among those who wait and among those whose prompt is being computed."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._half = max(1, max_rows // 2)
        self._accounts = PrefillAccounts()
        self._starts = Patience()
        self._chunks = Patience()

    def meet(self, present: Iterable[Sequence]) -> None:
        """Takes note of everybody who waits or runs; to be called before any choice."""
        self._accounts.meet(present)

    def next_start(self, heads: Ordered[Sequence], rows: Ordered[Sequence]) -> Sequence | None:
        """Who gets the next row, None if nobody may.

        `heads`: the first in line of each flow that has no row, in the order of submission.
        """
        allowed = self._allowed(heads, rows)
        if not allowed:
            return None
        return min(self._starts.choose(allowed), key=self._accounts.of)

    def next_chunk(self, ready: Ordered[Sequence]) -> Sequence:
        """Whose prompt goes on; among equals the one that was served longest ago."""
        return min(self._chunks.choose(ready), key=self._urgency)

    def next_restore(self, ready: Ordered[Sequence]) -> Sequence:
        """Who is restored first."""
        return min(ready, key=lambda each: (is_background(each), *self._urgency(each)))

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """Books a chunk that is about to be computed."""
        self._accounts.charge(sequence, tokens)

    def _urgency(self, sequence: Sequence) -> tuple[float, int]:
        return self._accounts.of(sequence), sequence.served_at_step

    def _allowed(self, heads: Ordered[Sequence], rows: Ordered[Sequence]) -> list[Sequence]:
        if len(rows) >= self._max_rows:
            guests = [each for each in heads if _is_agents_own(each)]
            return guests if self._has_guest_row(rows) else []
        allowed = list(heads)
        if _count(rows, is_anonymous) >= self._half and any(map(_is_agents_own, heads)):
            allowed = [each for each in allowed if not is_anonymous(each)]
        someone_watches = not all(map(is_background, (*heads, *rows)))
        if _count(rows, is_background) >= self._half and someone_watches:
            allowed = [each for each in allowed if not is_background(each)]
        return allowed

    def _has_guest_row(self, rows: Ordered[Sequence]) -> bool:
        if len(rows) > self._max_rows or self._max_rows == 1:
            return False
        crowd = len(rows) - _count(rows, _is_agents_own)
        return 2 * crowd > self._max_rows


def is_anonymous(sequence: Sequence) -> bool:
    """Whether the request names no agent."""
    return sequence.request.agent is None


def is_background(sequence: Sequence) -> bool:
    """Whether the request can wait."""
    return sequence.request.priority == "background"


def _is_agents_own(sequence: Sequence) -> bool:
    return not is_anonymous(sequence) and not is_background(sequence)


def _count(sequences: Iterable[Sequence], claim: Callable[[Sequence], bool]) -> int:
    return sum(map(claim, sequences))
