"""Finds a model by name or path, loads it and says what there is to know about it.

On a CPU the weights are dequantised and everything is float32, since MLX's half-precision and
quantised matrix products are scalar loops there (2 to 5 GFLOP/s against 166); on a GPU they stay as
they are. Code that a model brings along is never run. Does not know requests or the pool.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mlx.core as mx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS, dequantize_model, load_tokenizer
from mlx_lm.utils import load_model as load_mlx_model

from dovecote_engine.errors import ModelError
from dovecote_engine.heap import trim
from dovecote_engine.models.conversion import convert_gguf
from dovecote_engine.models.embedded import EMBEDDED_MODEL, embedded_gguf
from dovecote_engine.models.probe import probe
from dovecote_engine.text.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlx import nn

    from dovecote_cache import DTypeName, Geometry

__all__ = ["LoadedModel", "load_model", "model_name"]

_EMBEDDED: Final = frozenset({"embedded", EMBEDDED_MODEL})
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# What models call the longest sequence they can attend to.
_CONTEXT_KEYS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "n_ctx",
)
# What reading a damaged or unknown model raises in mlx, mlx-lm, transformers and json.
_UNREADABLE: Final = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    StrictDataclassError,
)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run, all of it evaluated: any one thread may run it.

    `id` is its public name. `dtype` is that of K and V, as in `geometry`. `created` is the time of
    its newest weight file in unix seconds. `uncached` says why the pool cannot keep what the model
    computes, and `geometry` is then one of nothing. `is_recurrent`: some layers keep a state that
    `geometry` does not tell of.
    """

    id: str
    model: nn.Module
    tokenizer: ChatTokenizer
    config: Mapping[str, object]
    context_tokens: int
    dtype: DTypeName
    weight_files: tuple[Path, ...]
    geometry: Geometry
    eos_ids: frozenset[int]
    created: int
    uncached: str = ""
    is_recurrent: bool = False


def load_model(
    name_or_path: str,
    *,
    models_dir: Path,
    progress: Callable[[int, int], None] | None = None,
    block_tokens: int = 32,
) -> LoadedModel:
    """The model called `name_or_path`: `embedded`, its name, a model directory in mlx-lm's format,
    a `.gguf` file, or `owner/name` on the Hugging Face hub.

    GGUF is converted once into `models_dir`; `progress` then hears of the bytes done and in total.
    Raises: ModelError if it cannot be found, read or served.
    """
    mx.clear_cache()  # what a model before this one left there
    trim()
    model_id, folder = _locate(name_or_path, models_dir, progress)
    try:
        model, config = load_mlx_model(folder, lazy=True)
        tokenizer = _load_tokenizer(folder, config)
        _make_runnable(model)
    except _UNREADABLE as error:
        message = f"The model in {folder} cannot be loaded: {error}"
        raise ModelError(message) from error
    findings = probe(model, block_tokens)
    weight_files = tuple(sorted(folder.glob("model*.safetensors")))
    return LoadedModel(
        id=model_id,
        model=model,
        tokenizer=tokenizer,
        config=config,
        context_tokens=_context_tokens(config),
        dtype=findings.geometry.dtype,
        weight_files=weight_files,
        geometry=findings.geometry,
        eos_ids=tokenizer.eos_ids,
        created=int(max(file.stat().st_mtime for file in weight_files)),
        uncached=findings.uncached,
        is_recurrent=findings.is_recurrent,
    )


def model_name(name_or_path: str) -> str:
    """The public name of the model that `load_model` would load. Looks at files, reads none.

    Raises: ModelError if there is nothing of that name.
    """
    if name_or_path in _EMBEDDED:
        return EMBEDDED_MODEL
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        if not (path / "config.json").is_file():
            message = f"{name_or_path!r} is a directory without a config.json: no model"
            raise ModelError(message)
        return path.resolve().name
    if path.is_file():
        return path.stem
    if _HUB_NAME.fullmatch(name_or_path):
        return name_or_path
    message = (
        f"{name_or_path!r} is no model directory or GGUF file here, nor a name on the Hugging Face "
        f"hub (owner/name), nor {EMBEDDED_MODEL!r}"
    )
    raise ModelError(message)


def _locate(
    name: str, models_dir: Path, progress: Callable[[int, int], None] | None
) -> tuple[str, Path]:
    """The public name of `name` and its model directory, made or fetched where it is not there."""
    public, path = model_name(name), Path(name).expanduser()
    if name in _EMBEDDED:
        return public, convert_gguf(embedded_gguf(), models_dir, progress)
    if path.is_dir():
        return public, path
    if path.is_file():
        return public, convert_gguf(path, models_dir, progress)
    return public, _fetch(name)


def _fetch(name: str) -> Path:
    """The hub's files of `name`, from the local hub cache where they are there already."""
    try:
        return Path(snapshot_download(name, allow_patterns=DEFAULT_ALLOW_PATTERNS))
    except (OSError, ValueError) as error:
        message = f"{name!r} is not on this machine and cannot be fetched from the hub: {error}"
        raise ModelError(message) from error


def _load_tokenizer(folder: Path, config: Mapping[str, object]) -> ChatTokenizer:
    # Without the explicit refusal transformers asks on the terminal whether to run the code.
    wrapper = load_tokenizer(folder, {"trust_remote_code": False}, config.get("eos_token_id"))
    return ChatTokenizer(wrapper)


def _make_runnable(model: nn.Module) -> None:
    """Evaluates the parameters; on a CPU as float32 and dequantised.

    Scales and biases become float32 first, so that the products are not rounded to half precision
    on the way; the second call reaches what a format without float scales dequantises to.
    """
    if mx.default_device().type == mx.DeviceType.cpu:
        model.set_dtype(mx.float32)
        dequantize_model(model)
        model.set_dtype(mx.float32)
    mx.eval(model.parameters())


def _context_tokens(config: Mapping[str, object]) -> int:
    """The longest sequence the model takes.

    Raises: ModelError if its configuration does not say.
    """
    text_config = config.get("text_config")
    for settings in (config, text_config if isinstance(text_config, dict) else {}):
        for key in _CONTEXT_KEYS:
            value = settings.get(key)
            if isinstance(value, int) and value > 0:
                return value
    message = f"the model's config.json has none of {', '.join(_CONTEXT_KEYS)}"
    raise ModelError(message)
