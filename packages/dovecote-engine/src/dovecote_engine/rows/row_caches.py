"""mlx-lm's own caches, one list of them a row, for models whose state no slab and no pool can hold.

Nothing of such a row outlives its request, and rows do not share a forward: what its caches are is
the model's own affair. What they take is estimated from two short runs.

Does not know sequences or sampling. Engine thread only, but for the numbers.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import CacheList, make_prompt_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlx import nn

    from dovecote_cache import Lease

__all__ = ["RowCaches", "StateCost", "flat"]

Caches = list[Any]

_MOST_TOKENS: Final = 1 << 30
_SHORT, _LONG = 2, 4


@dataclass(frozen=True, slots=True)
class StateCost:
    """What a row's caches take: so many bytes, and so many more for each token."""

    row_bytes: int
    token_bytes: int

    @classmethod
    def measure(cls, model: nn.Module) -> StateCost:
        """From the states after 2 and after 4 tokens. A window counts as if it had no end."""
        short, long = (_state_bytes(model, count) for count in (_SHORT, _LONG))
        token_bytes = max(0, long - short) // (_LONG - _SHORT)
        return cls(short - _SHORT * token_bytes, token_bytes)

    def bytes(self, tokens: int) -> int:
        """Of a row of so many tokens."""
        return self.row_bytes + tokens * self.token_bytes


class RowCaches:
    """Rows of whatever the model's caches are, within a byte budget."""

    planes = 1
    capacity: int

    def __init__(self, model: nn.Module, budget_bytes: int, block_tokens: int) -> None:
        """Runs the model twice, over a few tokens."""
        self._model = model
        self._cost = StateCost.measure(model)
        self._budget_bytes = budget_bytes
        self.block_tokens = block_tokens
        self.reset()

    @property
    def rows(self) -> int:
        """Rows that exist."""
        return len(self._rows)

    @property
    def bytes(self) -> int:
        """An estimate of what the rows take."""
        return sum(self._cost.bytes(tokens) for tokens in self._tokens if tokens)

    @property
    def row_limit_tokens(self) -> int:
        """The longest row that fits into the budget alone."""
        if not self._cost.token_bytes:
            return _MOST_TOKENS
        return max(0, self._budget_bytes - self._cost.row_bytes) // self._cost.token_bytes

    def can_reserve(self, rows: int, tokens: int) -> bool:
        """Whether that many rows of that many tokens fit into the budget."""
        return rows * self._cost.bytes(tokens) <= self._budget_bytes

    def holds(self, rows: int, tokens: int) -> bool:  # noqa: ARG002 - as the slab's
        """Always: caches grow by themselves."""
        return True

    def reserve(self, rows: int, tokens: int) -> None:
        """Makes the rows that are missing."""
        while len(self._rows) < rows:
            self._rows.append([])
            self._tokens.append(0)
        self.capacity = max(self.capacity, tokens)

    def grow(self, rows: int, tokens: int, planes: int) -> int:  # noqa: ARG002
        """There are no pieces to grow in."""
        self.reserve(rows, tokens)
        return 0

    def reset(self) -> None:
        """Gives all memory back. Every row is lost."""
        self.capacity = 0
        self._rows: list[Caches] = []
        self._tokens: list[int] = []
        mx.clear_cache()

    def settle(self) -> None:
        """Evaluates whatever a forward left pending."""
        mx.eval([cache.state for caches in self._rows for cache in caches])

    def restore(self, lease: Lease, row: int, start_block: int, end_block: int) -> int:  # noqa: ARG002
        """Nothing comes from a pool."""
        return 0

    def resumable(self, lease: Lease, tokens: int) -> int:  # noqa: ARG002 - as the slab's
        """Nothing comes from a pool."""
        return 0

    def stop(self, resumed: int, matched: int, prompt_tokens: int) -> int:  # noqa: ARG002
        """Nowhere."""
        return 0

    def resume(self, lease: Lease, row: int, tokens: int, ids: Sequence[int]) -> int:  # noqa: ARG002
        """Nothing comes from a pool."""
        return 0

    def move_row(self, source: int, target: int, tokens: int) -> None:
        """Copies a row over another one."""
        self._rows[target] = deepcopy(self._rows[source]) if tokens else []
        self._tokens[target] = tokens

    def swap_rows(self, one: int, other: int, tokens: int) -> None:  # noqa: ARG002
        """Exchanges two rows."""
        self._rows[one], self._rows[other] = self._rows[other], self._rows[one]
        self._tokens[one], self._tokens[other] = self._tokens[other], self._tokens[one]

    def clear_row(self, row: int, start: int = 0) -> None:  # noqa: ARG002
        """Drops all that the row holds."""
        self._rows[row] = []
        self._tokens[row] = 0

    def at(self, row: int, start: int, end: int) -> Caches:
        """The row's caches, about to take positions [start, end); fresh ones at the beginning."""
        if not start:
            self._rows[row] = make_prompt_cache(self._model)
        self._tokens[row] = end
        return self._rows[row]


def _state_bytes(model: nn.Module, count: int) -> int:
    caches = make_prompt_cache(model)
    for cache in flat(caches):
        if hasattr(cache, "step"):
            cache.step = 1  # instead of room for 256 tokens at once
    mx.eval(model(mx.array([[0] * count]), cache=caches))
    state = [cache.state for cache in caches]
    mx.eval(state)
    return sum(leaf.nbytes for _, leaf in tree_flatten(state) if isinstance(leaf, mx.array))


def flat(caches: Iterable[Any]) -> Iterator[Any]:
    """Every layer's caches, one after the other, those in lists of lists too."""
    for cache in caches:
        if isinstance(cache, CacheList):
            yield from flat(cache.caches)
        else:
            yield cache
