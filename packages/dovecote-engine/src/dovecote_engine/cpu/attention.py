"""Puts the CPU's own kernels behind mlx-lm's models, where they give what MLX gives.

A model's module calls `scaled_dot_product_attention` and `swiglu` by names that it imported from
mlx-lm. These names are given dispatchers: attention over an `AttendingCache`, and gates in float32,
go to the kernels of `cpu_kernels.py`, all else to mlx-lm as before.

    update_and_fetch(K, V)         keeps the new tokens' K and V and returns them as they are
    attention(Q, K, V, cache)      stores them in the slab and attends, in one call of C;
                                   or, where a model asks for more than causal attention
                                   (sinks, a mask of its own), stores and attends as MLX does

Which models do that cannot be told from their names: so each is tried once, at the start, and keeps
MLX's attention unless every layer came here and the logits agree. Engine thread only.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import mlx.core as mx
from mlx import nn
from mlx_lm.models import activations
from mlx_lm.models import base as mlx_base

from dovecote_engine.cpu.kernels import MAX_HEAD_DIM, find_kernels
from dovecote_engine.rows.layer_cache import ChunkCursor, JointCursor, LayerCache, layer_caches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dovecote_engine.cpu.kernels import CpuKernels
    from dovecote_engine.rows.layer_cache import Mask
    from dovecote_engine.rows.slab import Slab

    Fresh = tuple[mx.array, mx.array, mx.array]

__all__ = ["AttendingCache", "attending_caches", "can_join"]

_TRIAL: Final = (3, 1, 2, 0)
# Of the largest logit: both round in float32.
_TOLERANCE: Final = 1e-3
# What a model raises whose caches or gates are not used as expected.
_UNFIT: Final = (AttributeError, TypeError, ValueError, LookupError, RuntimeError)
_ATTENTION, _GATE = "scaled_dot_product_attention", "swiglu"


class AttendingCache(LayerCache):
    """A layer whose attention is computed where its K and V are."""

    def __init__(self, slab: Slab, layer: int, kernels: CpuKernels) -> None:
        super().__init__(slab, layer)
        self._kernels = kernels
        self._fresh: tuple[mx.array, mx.array] | None = None
        self.attended = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The new tokens' K and V, which only `attend` knows to complete."""
        self._fresh = (keys, values)
        return self._fresh

    def attend(
        self, queries: mx.array, scale: float, mask: Mask, sinks: mx.array | None
    ) -> mx.array:
        """Attention of queries [R, Hq, T, D] over all that the rows hold, the new included."""
        if self._fresh is None:
            message = "attention without new K and V"
            raise RuntimeError(message)
        (keys, values), self._fresh = self._fresh, None
        self.attended += 1
        is_ours = sinks is None and self.cursor.implies(mask) and queries.dtype == mx.float32
        if isinstance(self.cursor, JointCursor):
            if not is_ours:
                message = "this attention is not computed in parts"
                raise RuntimeError(message)
            return self._attend_jointly((queries, keys, values), self.cursor, scale)
        if not is_ours:
            everything = super().update_and_fetch(keys, values)
            return mx.fast.scaled_dot_product_attention(
                queries, *everything, scale=scale, mask=mask, sinks=sinks
            )
        fresh = (queries, keys, values)
        return self._kernels.attend(fresh, self.state, self.cursor.places, scale)

    def _attend_jointly(self, fresh: Fresh, cursor: JointCursor, scale: float) -> mx.array:
        """Of [R + T, H, 1, D] the first R by rows, the others as the T tokens of one row."""
        rows = cursor.rows
        decoding = (fresh[0][:rows], fresh[1][:rows], fresh[2][:rows])
        q, k, v = (array[rows:].transpose(2, 1, 0, 3) for array in fresh)
        decoded = self._kernels.attend(decoding, self.state, cursor.decode.places, scale)
        chunk = self._kernels.attend((q, k, v), self.state, cursor.chunk.places, scale)
        return mx.concatenate([decoded, chunk.transpose(2, 1, 0, 3)])


def can_join(model: nn.Module, slab: Slab, caches: Sequence[LayerCache]) -> bool:
    """Whether a chunk and a decode step give in one forward what they give in two.

    No row may be in use yet.
    """
    if not all(isinstance(cache, AttendingCache) for cache in caches):
        return False
    was_empty = not slab.rows
    slab.reserve(2, len(_TRIAL))
    last = len(_TRIAL) - 1
    try:
        apart = _trial_logits(model, caches)
        for cache in caches:
            cache.cursor = JointCursor([last], 1, 0, last)
        tokens = [_TRIAL[last], *_TRIAL[:last]]
        joint = model(mx.array([[token] for token in tokens]), cache=caches)[:, -1]
        together = mx.concatenate([joint[last:], joint[:1]]).astype(mx.float32)
        largest = mx.max(mx.abs(apart))
        return bool((mx.max(mx.abs(apart - together)) <= _TOLERANCE * largest).item())
    except _UNFIT:
        return False
    finally:
        if was_empty:
            slab.reset()


def attending_caches(model: nn.Module, slab: Slab) -> list[LayerCache]:
    """A cache for each layer, of this kind where the model allows it. No row may be in use yet."""
    plain, kernels = layer_caches(slab), find_kernels()
    if kernels is None:
        return plain
    caches = [_attending(slab, layer, kernels) or cache for layer, cache in enumerate(plain)]
    namespaces = _namespaces(model)
    _take_over(namespaces, kernels)
    was_empty = not slab.rows
    slab.reserve(1, len(_TRIAL))
    try:
        agree = _agree(model, caches, plain)
    except _UNFIT:
        agree = False
        _give_back(namespaces)
    finally:
        if was_empty:
            slab.reset()
    return caches if agree else plain


def _attending(slab: Slab, layer: int, kernels: CpuKernels) -> AttendingCache | None:
    key, value = slab.keys[layer], slab.values[layer]
    wide = max(key.shape[-1], value.shape[-1])
    if slab.rings[layer] or key.dtype != mx.float32 or wide > MAX_HEAD_DIM:
        return None
    return AttendingCache(slab, layer, kernels)


def _agree(model: nn.Module, caches: Sequence[LayerCache], plain: Sequence[LayerCache]) -> bool:
    found, wanted = (_trial_logits(model, each) for each in (caches, plain))
    attending = [cache for cache in caches if isinstance(cache, AttendingCache)]
    largest = mx.max(mx.abs(wanted))
    agree = mx.max(mx.abs(found - wanted)) <= _TOLERANCE * largest
    return bool(agree.item()) and all(cache.attended == 2 for cache in attending)


def _trial_logits(model: nn.Module, caches: Sequence[LayerCache]) -> mx.array:
    """Of a chunk and one token more."""
    logits = []
    for start, end in ((0, len(_TRIAL) - 1), (len(_TRIAL) - 1, len(_TRIAL))):
        for cache in caches:
            cache.cursor = ChunkCursor(0, start, end)
        logits.append(model(mx.array([_TRIAL[start:end]]), cache=caches)[:, -1])
        mx.eval(logits[-1])
    return mx.concatenate(logits).astype(mx.float32)


# ---- the names in a model's modules ----


def _namespaces(model: nn.Module) -> list[dict[str, Any]]:
    """Those of the Python modules that define the model's parts."""
    parts = (part for _, part in model.named_modules()) if isinstance(model, nn.Module) else ()
    names = {type(part).__module__ for part in parts}
    return [vars(sys.modules[name]) for name in names if name in sys.modules]


def _take_over(namespaces: Sequence[dict[str, Any]], kernels: CpuKernels) -> None:
    for names in namespaces:
        if names.get(_ATTENTION) is mlx_base.scaled_dot_product_attention:
            names[_ATTENTION] = _attention
        if names.get(_GATE) is activations.swiglu:
            names[_GATE] = _gate_of(kernels)


def _give_back(namespaces: Sequence[dict[str, Any]]) -> None:
    for names in namespaces:
        if names.get(_ATTENTION) is _attention:
            names[_ATTENTION] = mlx_base.scaled_dot_product_attention
        if _GATE in names:
            names[_GATE] = activations.swiglu


def _attention(  # noqa: PLR0913, PLR0917 - as mlx-lm's
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: object,
    scale: float,
    mask: Mask,
    sinks: mx.array | None = None,
) -> mx.array:
    if isinstance(cache, AttendingCache):
        return cache.attend(queries, scale, mask, sinks)
    original: Any = mlx_base.scaled_dot_product_attention
    attended: mx.array = original(queries, keys, values, cache, scale, mask, sinks)
    return attended


def _gate_of(kernels: CpuKernels) -> Callable[[mx.array, mx.array], mx.array]:
    def swiglu(gate: mx.array, x: mx.array) -> mx.array:
        if gate.dtype == x.dtype == mx.float32 and gate.shape == x.shape:
            return kernels.swiglu(gate, x)
        gated: mx.array = activations.swiglu(gate, x)
        return gated

    return swiglu
