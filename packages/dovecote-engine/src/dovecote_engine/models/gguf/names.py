"""mlx-lm's names of a GGUF file's tensors.

Does not know values or architectures: whoever asks brings the names of its layers' parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dovecote_engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TensorNames"]

_MODULES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_NAME: Final = re.compile(r"blk\.(\d{1,5})\.(\w+)")


@dataclass(frozen=True, slots=True)
class TensorNames:
    """Those of one architecture; `model` is what an error calls it."""

    model: str
    layer_modules: Mapping[str, str]

    def of(self, name: str, layers: int) -> str:
        """The name in mlx-lm's model. Raises: ModelError if the tensor has no place in it."""
        module, _, part = name.rpartition(".")
        layer = _LAYER_NAME.fullmatch(module)
        if part in {"weight", "scales", "biases"}:
            if module in _MODULES:
                return f"{_MODULES[module]}.{part}"
            if layer and layer[2] in self.layer_modules and int(layer[1]) < layers:
                return f"model.layers.{layer[1]}.{self.layer_modules[layer[2]]}.{part}"
        message = f"the tensor {name!r} has no place in a {self.model} model that can be served"
        raise ModelError(message)
