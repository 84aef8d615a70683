"""The geometry of a model's K and V, found by computing one token.

Configuration names differ from model to model and some keep other things than they say (latent K
and V, shared layers), so the arrays themselves are asked. Does not know the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from dovecote_cache import Geometry, LayerShape
from dovecote_engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx import nn

    from dovecote_cache import DTypeName

__all__ = ["probe_geometry"]

_DTYPES: Final[dict[mx.Dtype, DTypeName]] = {
    mx.float32: "float32",
    mx.float16: "float16",
    mx.bfloat16: "bfloat16",
}


def probe_geometry(model: nn.Module, block_tokens: int = 32) -> Geometry:
    """The shape of K and V in each of the model's caches, and their element type.

    Evaluates everything the forward pass touches, the constants that models keep beside their
    parameters included: afterwards another thread may run the model.
    Raises: ModelError, naming the kind, if a layer keeps anything but plain K and V.
    """
    caches = make_prompt_cache(model)
    _require_plain(caches)
    mx.eval(model(mx.array([[0]]), cache=caches))
    planes = [plane for cache in caches for plane in (cache.keys, cache.values)]
    if not planes or any(plane is None or plane.ndim != 4 for plane in planes):
        message = "the model did not put a token's K and V into every layer's cache"
        raise ModelError(message)
    if len(kinds := {plane.dtype for plane in planes}) > 1 or not kinds <= _DTYPES.keys():
        message = f"the model's K and V are {', '.join(sorted(map(str, kinds)))}, not of one float"
        raise ModelError(message)
    layers = tuple(_layer_shape(cache) for cache in caches)
    return Geometry(layers, _DTYPES[kinds.pop()], block_tokens)


def _require_plain(caches: Sequence[object]) -> None:
    others = {type(cache).__name__ for cache in caches if type(cache) is not KVCache}
    if others:
        message = f"layers that keep {', '.join(sorted(others))} cannot be cached yet, only KVCache"
        raise ModelError(message)


def _layer_shape(cache: KVCache) -> LayerShape:
    keys, values = cache.keys, cache.values
    return LayerShape(kv_heads=keys.shape[1], k_dim=keys.shape[3], v_dim=values.shape[3])
