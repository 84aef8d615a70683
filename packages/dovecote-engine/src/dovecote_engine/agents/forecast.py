"""What a prompt would find in the pool, and where it leaves its agent's history: asked, not run.

    the agent's history  |-- ids ------------------------|
    the prompt           |-- the same ids --|-- others ------|
                                            diverges_at

Reads the ids of the agent's blocks one after the other; what was evicted of them is not known any
more. It counts as a use of those blocks and changes nothing else. Does not know agents or requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dovecote_cache import PoolIOError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote_cache import Chain, Lease, Pool

__all__ = ["Forecast", "forecast"]

_SHOWN_TOKENS = 16
"""How many tokens from the divergence on are shown of either side."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """`cached_tokens` of the prompt would be restored, at most all but its last token.

    `agent_tokens`: of the agent's history, None if there is none; `known_tokens` of them are in the
    pool still, as far as it is known what they are. `diverges_at`: the first position at which the
    prompt is not the history's, None if it goes on where that ends or ends before; there the
    history has `expected` and the prompt `found`.
    """

    prompt_tokens: int
    cached_tokens: int
    agent_tokens: int | None = None
    known_tokens: int = 0
    diverges_at: int | None = None
    expected: tuple[int, ...] = ()
    found: tuple[int, ...] = ()


def all_matched(lease: Lease, tokens: int) -> int:  # noqa: ARG001 - the shape of `Rows.resumable`
    """Where K and V are all that a model keeps."""
    return tokens


def forecast(
    pool: Pool,
    prompt: tuple[int, ...],
    salt: bytes,
    history: Chain | None,
    resumable: Callable[[Lease, int], int] = all_matched,
) -> Forecast:
    """The forecast for a prompt of an agent with that history. Any thread.

    `resumable` says after how many of the matched tokens a row can go on.
    Raises: PoolExhausted if running requests need every frame; MemoryError.
    """
    with pool.lease(0) as lease:
        cached = resumable(lease, lease.match(np.array(prompt[:-1], np.uint32), salt))
    if history is None:
        return Forecast(len(prompt), cached)
    with pool.lease(0) as lease:
        known = _read_ids(lease, lease.hold(history), len(prompt) + _SHOWN_TOKENS)
    at = _first_difference(known, prompt)
    if at is None:
        return Forecast(len(prompt), cached, history.tokens, len(known))
    end = at + _SHOWN_TOKENS
    expected, found = known[at:end], prompt[at:end]
    return Forecast(len(prompt), cached, history.tokens, len(known), at, expected, found)


def _read_ids(lease: Lease, tokens: int, most_tokens: int) -> tuple[int, ...]:
    """The ids of the held chain, up to a damaged block or beyond `most_tokens`."""
    ids: list[int] = []
    block = 0
    while len(ids) < min(tokens, most_tokens):
        try:
            read, _ = lease.read(block)
        except PoolIOError:
            break
        ids += read.tolist()
        block += 1
    return tuple(ids[:tokens])


def _first_difference(history: tuple[int, ...], prompt: tuple[int, ...]) -> int | None:
    pairs = zip(history, prompt, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), None)
