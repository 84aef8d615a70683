"""What a model keeps of its tokens, found by computing a few: can the pool hold it, in which shape?

Configuration names differ from model to model and some keep other things than they say (latent K
and V, shared layers), so the arrays themselves are asked. And a model may want more of its caches
than their shape tells; so it is tried over a slab, and has to give the logits that it gives over
mlx-lm's own caches. Does not know the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from dovecote_cache import Geometry, LayerShape
from dovecote_engine.errors import ModelError
from dovecote_engine.models.recurrent_probe import require_resumable, split_caches
from dovecote_engine.rows.forward import BatchForward
from dovecote_engine.rows.slab import Slab

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx import nn

    from dovecote_cache import DTypeName

__all__ = ["Findings", "probe", "probe_geometry"]

_DTYPES: Final[dict[mx.Dtype, DTypeName]] = {
    mx.float32: "float32",
    mx.float16: "float16",
    mx.bfloat16: "bfloat16",
}
_TRIAL: Final = ([0, 1, 2, 3], [2, 1])
_SLAB_BYTES: Final = 1 << 40
# Of the largest logit: half precision rounds a batch differently, another mask changes far more.
_TOLERANCE: Final = 0.05
# What a model raises that asks its caches for what a slab has not.
_UNFIT: Final = (AttributeError, TypeError, ValueError, LookupError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Findings:
    """A model's geometry; or why it has none, and one of nothing in its place."""

    geometry: Geometry
    uncached: str = ""
    is_recurrent: bool = False
    """Whether some layers keep a recurrent state; the geometry is that of the others."""


def probe(model: nn.Module, block_tokens: int = 32) -> Findings:
    """The shape of what the pool is to keep, or why it cannot.

    Evaluates everything the forward pass touches, the constants that models keep beside their
    parameters included: afterwards another thread may run the model.
    """
    is_recurrent = bool(split_caches(make_prompt_cache(model))[1])
    try:
        geometry = probe_geometry(model, block_tokens)
        if is_recurrent:
            _require_resumable(model)
        else:
            _require_agreement(model, geometry)
    except ModelError as error:
        mx.eval(model(mx.array([[0]]), cache=make_prompt_cache(model)))
        return Findings(Geometry((LayerShape(1, 1, 1),), "float32", block_tokens), str(error))
    return Findings(geometry, is_recurrent=is_recurrent)


def probe_geometry(model: nn.Module, block_tokens: int = 32) -> Geometry:
    """The shape of K and V in each of the model's caches, and their element type.

    Beside K and V of all tokens some layers may keep a recurrent state, which is left out.
    Raises: ModelError, naming the kind, if a layer keeps anything but that and K and V of its
    tokens, or of the last so many.
    """
    all_caches = make_prompt_cache(model)
    caches = split_caches(all_caches)[0] or all_caches
    _require_known(caches)
    mx.eval(model(mx.array([[0]]), cache=all_caches))
    planes = [plane for cache in caches for plane in (cache.keys, cache.values)]
    if not planes or any(plane is None or plane.ndim != 4 for plane in planes):
        message = "the model did not put a token's K and V into every layer's cache"
        raise ModelError(message)
    if len(kinds := {plane.dtype for plane in planes}) > 1 or not kinds <= _DTYPES.keys():
        message = f"the model's K and V are {', '.join(sorted(map(str, kinds)))}, not of one float"
        raise ModelError(message)
    layers = tuple(_layer_shape(cache) for cache in caches)
    return Geometry(layers, _DTYPES[kinds.pop()], block_tokens)


def _require_known(caches: Sequence[Any]) -> None:
    others = {type(cache).__name__ for cache in caches if not _is_known(cache)}
    if others:
        message = f"layers that keep {', '.join(sorted(others))} cannot be cached yet"
        raise ModelError(message)


def _is_known(cache: Any) -> bool:  # noqa: ANN401 - any of mlx-lm's
    """K and V of all positions, or of a window that slides without holding on to the first ones."""
    is_sliding = type(cache) is RotatingKVCache and cache.keep == 0 and cache.max_size > 0
    return is_sliding or type(cache) is KVCache


def _layer_shape(cache: KVCache | RotatingKVCache) -> LayerShape:
    heads, k_dim, v_dim = cache.keys.shape[1], cache.keys.shape[3], cache.values.shape[3]
    return LayerShape(heads, k_dim, v_dim, getattr(cache, "max_size", 0))


def _require_agreement(model: nn.Module, geometry: Geometry) -> None:
    """Two rows of different lengths, in chunks and one token each, against mlx-lm's own caches.

    Raises: ModelError if the model cannot run over a slab, or its logits differ.
    """
    try:
        found, wanted = _slab_logits(model, geometry), _own_logits(model)
        largest = mx.max(mx.abs(wanted))
        agree = mx.max(mx.abs(found - wanted)) <= _TOLERANCE * largest
    except _UNFIT as error:
        message = f"the model cannot run over cached K and V ({type(error).__name__}: {error})"
        raise ModelError(message) from error
    if not agree.item():
        message = "the model computes something else over cached K and V"
        raise ModelError(message)


def _require_resumable(model: nn.Module) -> None:
    try:
        require_resumable(model)
    except _UNFIT as error:
        message = f"the model's state cannot be put back ({type(error).__name__}: {error})"
        raise ModelError(message) from error


def _slab_logits(model: nn.Module, geometry: Geometry) -> mx.array:
    slab = Slab(geometry, _SLAB_BYTES, max(map(len, _TRIAL)))
    slab.reserve(len(_TRIAL), max(map(len, _TRIAL)))
    forward = BatchForward(model, slab)
    for row, (first, *rest) in enumerate(_TRIAL):
        forward.chunk([first], row, 0)
        if rest[:-1]:
            forward.chunk(rest[:-1], row, 1)
    logits = forward.decode([row[-1] for row in _TRIAL], [len(row) - 1 for row in _TRIAL])
    return logits.astype(mx.float32)


def _own_logits(model: nn.Module) -> mx.array:
    rows = []
    for row in _TRIAL:
        caches = make_prompt_cache(model)
        model(mx.array([row[:-1]]), cache=caches)
        rows.append(model(mx.array([row[-1:]]), cache=caches)[:, -1])
    return mx.concatenate(rows).astype(mx.float32)
