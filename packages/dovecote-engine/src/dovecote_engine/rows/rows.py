"""Where the rows' state lies, as scheduler, runner and committer see it: a slab, or its neighbour.

The slab keeps K and V that the pool can read and write; `RecurrentRows` K and V, and a state that
only a checkpoint brings back; `RowCaches` whatever a model needs that nothing else is known of.
Rows and capacity mean the same in all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_cache import Lease

__all__ = ["Rows"]


class Rows(Protocol):
    """The memory of the running rows. Engine thread only, but for the numbers."""

    @property
    def rows(self) -> int:
        """Rows that there is room for now."""

    @property
    def capacity(self) -> int:
        """Positions that there is room for in each."""

    @property
    def block_tokens(self) -> int:
        """Tokens of a block of the pool."""

    @property
    def planes(self) -> int:
        """In how many pieces it can grow."""

    @property
    def bytes(self) -> int:
        """The memory that it takes now."""

    @property
    def row_limit_tokens(self) -> int:
        """The longest row that fits into the budget alone."""

    def can_reserve(self, rows: int, tokens: int) -> bool:
        """Whether that many rows of that many tokens fit into the budget."""

    def holds(self, rows: int, tokens: int) -> bool:
        """Whether there is room for that many rows of that many tokens now."""

    def reserve(self, rows: int, tokens: int) -> None:
        """Makes that room at once; what the rows hold stays."""

    def grow(self, rows: int, tokens: int, planes: int) -> int:
        """Makes that room for up to `planes` more pieces; returns how many it was."""

    def reset(self) -> None:
        """Gives all memory back. Every row is lost."""

    def settle(self) -> None:
        """Evaluates whatever a forward left pending."""

    def restore(self, lease: Lease, row: int, start_block: int, end_block: int) -> int:
        """Puts matched blocks into a row; the tokens that the lease still covers."""

    def resumable(self, lease: Lease, tokens: int) -> int:
        """Of the matched tokens, those after which a row can go on."""

    def stop(self, resumed: int, matched: int, prompt_tokens: int) -> int:
        """Where in a prompt a chunk has to end; 0 if nowhere."""

    def resume(self, lease: Lease, row: int, tokens: int, ids: Sequence[int]) -> int:
        """Whose blocks were restored: has the row go on after so many tokens, or after fewer.

        Returns after how many. `ids`: the tokens, at least as many.
        """

    def move_row(self, source: int, target: int, tokens: int) -> None:
        """Has a row hold what another one holds, of so many tokens."""

    def swap_rows(self, one: int, other: int, tokens: int) -> None:
        """Exchanges what two rows hold, of so many tokens."""

    def clear_row(self, row: int, start: int = 0) -> None:
        """Leaves nothing in a row that could do harm, from a position on."""
