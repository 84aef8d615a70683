"""Can a model with recurrent state be resumed? Tried on a few tokens, as `probe` tries a slab.

Its layers have to keep K and V of all positions, and states of one size (mlx-lm's ArraysCache), and
nothing else. Then K, V and state are carried over to another row, the state as bytes, and the next
logits have to be those of a row that was never left. Does not know the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, KVCache, make_prompt_cache

from dovecote_engine.errors import ModelError
from dovecote_engine.rows.row_caches import flat
from dovecote_engine.rows.row_state import StateShape, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlx import nn

__all__ = ["require_resumable", "split_caches"]

_TRIAL = ([0, 1, 2], [3, 2], [1])
# Another order of sums at most: what is carried over is carried over to the bit.
_TOLERANCE = 0.01


def split_caches(caches: Sequence[Any]) -> tuple[list[KVCache], list[ArraysCache]]:
    """Those of K and V, and those of states. Both empty if there are others, or only one kind."""
    leaves = list(flat(caches))
    attending = [cache for cache in leaves if type(cache) is KVCache]
    recurrent = [cache for cache in leaves if type(cache) is ArraysCache]
    if not attending or not recurrent or len(attending) + len(recurrent) < len(leaves):
        return [], []
    return attending, recurrent


def require_resumable(model: nn.Module) -> None:
    """Raises: ModelError if its state grows, or a row that is carried over goes on differently."""
    wanted, shapes = _run(model, lambda caches: caches)
    found, _ = _run(model, lambda caches: _carried_over(model, caches))
    if len(set(shapes)) > 1:
        message = "the model's recurrent state grows with its tokens"
        raise ModelError(message)
    differs = mx.max(mx.abs(found - wanted)) > _TOLERANCE * mx.max(mx.abs(wanted))
    if bool(differs.item()):
        message = "the model computes something else from a state that was put back"
        raise ModelError(message)


def _run(
    model: nn.Module, between: Callable[[list[Any]], list[Any]]
) -> tuple[mx.array, list[StateShape]]:
    """The last logits of the trial, and the shape of the state after each piece of it."""
    caches: list[Any] = make_prompt_cache(model)
    shapes = []
    for place, piece in enumerate(_TRIAL):
        caches = between(caches) if place else caches
        logits = model(mx.array([piece]), cache=caches)[:, -1]
        mx.eval(logits, [cache.state for cache in caches])
        shapes.append(StateShape.of(state_of(split_caches(caches)[1])))
    return logits.astype(mx.float32), shapes


def _carried_over(model: nn.Module, caches: list[Any]) -> list[Any]:
    """Fresh caches that hold what these hold."""
    fresh: list[Any] = make_prompt_cache(model)
    (old_kv, old_states), (new_kv, new_states) = split_caches(caches), split_caches(fresh)
    for old, new in zip(old_kv, new_kv, strict=True):
        new.keys, new.values, new.offset = mx.array(old.keys), mx.array(old.values), old.offset
    arrays = state_of(old_states)
    shape = StateShape.of(arrays)
    restored = iter(shape.unpack(b"".join(shape.pack(arrays))))
    for state in new_states:
        state.cache = [next(restored) for _ in state.cache]
    return fresh
