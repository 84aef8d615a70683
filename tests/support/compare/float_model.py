"""The served model as others need it on a CPU: float32, without quantisation.

Dovecote dequantises at load; mlx-lm computes with what the directory has, and its quantised and
half-precision products are scalar loops on a CPU. A comparison should be of servers.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.utils import dequantize_model, load_model, save_config, save_model

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_float_model"]


def write_float_model(source: Path, target: Path) -> None:
    """Writes the mlx-lm directory `source` in float32 to `target`, tokenizer included."""
    model, config = load_model(source)
    model = dequantize_model(model)
    model.update(tree_map(_to_float32, model.parameters()))
    plain: dict[str, Any] = {
        key: value for key, value in config.items() if not key.startswith("quantization")
    }
    target.mkdir(parents=True)
    for path in source.glob("*.json"):
        shutil.copy(path, target)
    save_model(target, model)
    save_config({**plain, "torch_dtype": "float32"}, target / "config.json")


def _to_float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array
