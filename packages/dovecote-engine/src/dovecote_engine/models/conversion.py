"""Makes an mlx-lm model directory of a GGUF file, once, and hands the same one out ever after.

The directory appears complete or not at all: everything is written to a temporary directory beside
it and synced, and a rename publishes it. One lock file serialises the conversions of a models
directory, so that a second process waits and then finds the result, and whatever temporary
directory lies there while the lock is held was left by a killed run and is removed.

Does not know what GGUF means (`gguf`, `gguf_tokenizer`) nor how models are loaded (`loader`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mlx.core as mx

from dovecote_engine.errors import ModelError
from dovecote_engine.models.gguf.gemma3 import gemma3_config, gemma3_weights
from dovecote_engine.models.gguf.header import read_header
from dovecote_engine.models.gguf.llama import llama_config, llama_shape, llama_weights, read_tensors
from dovecote_engine.models.gguf.readable import readable
from dovecote_engine.models.gguf.tokenizer import gguf_tokenizer, tokenizer_settings
from dovecote_engine.models.gguf.values import vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dovecote_engine.models.gguf.header import GgufHeader

    Progress = Callable[[int, int], None]

__all__ = ["convert_gguf"]

# Part of the directory's name: raise it when the same file would be converted differently.
_CONVERTER: Final = b"2"
_PARTIAL: Final = ".partial-"
_LOCK: Final = ".lock"
# What of the file goes into its digest from each end. The head holds the metadata, the tail holds
# weights, so that neither a fine-tune of the same shape nor an edited template is taken for it.
_SAMPLE_BYTES: Final = 1 << 20
# Bounds the step of the progress report, and one file of a large model.
_SHARD_BYTES: Final = 1 << 30
_NEEDED: Final = ("config.json", "tokenizer.json", "tokenizer_config.json")


def convert_gguf(path: Path, models_dir: Path, progress: Progress | None = None) -> Path:
    """The model directory of the GGUF file `path` under `models_dir`, converted if it is not there.

    `progress` is called with bytes done and bytes in total, only if there is something to convert.
    Raises: ModelError if the file cannot be read or is not supported, or `models_dir` cannot be
    written; nothing is then left behind.
    """
    try:
        target = models_dir / f"{_slug(path.stem)}-{_digest(path)}"
        if not _is_complete(target):
            models_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(models_dir):
                _publish(path, target, progress or _unreported)
    except OSError as error:
        message = f"{path} cannot be converted to a model directory in {models_dir}: {error}"
        raise ModelError(message) from error
    return target


def _publish(path: Path, target: Path, progress: Progress) -> None:
    """Converts into a temporary directory and renames it. The lock is held."""
    for stale in target.parent.glob(_PARTIAL + "*"):
        shutil.rmtree(stale)
    if _is_complete(target):
        return
    if target.exists():
        shutil.rmtree(target)
    header = read_header(path)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=target.parent))
    try:
        _write_model(path, header, partial, progress)
        _close_and_sync(partial)
        partial.rename(target)
        _sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_model(path: Path, header: GgufHeader, folder: Path, progress: Progress) -> None:
    is_gemma = header.metadata.get("general.architecture") == "gemma3"
    if not is_gemma:
        llama_shape(header)
    tokenizer = gguf_tokenizer(header.metadata)
    settings, ends = tokenizer_settings(header.metadata)
    if tokenizer.get_vocab_size() > vocabulary_of(header):
        message = f"{path} has more tokens than rows in its embedding"
        raise ModelError(message)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "generation_config.json", {"eos_token_id": ends})
    with readable(path, header, folder) as file:
        tensors = read_tensors(file)
        if is_gemma:
            config, weights = gemma3_config(header, tensors), gemma3_weights(header, tensors)
        else:
            config = llama_config(header, tensors)
            weights = llama_weights(tensors, llama_shape(header))
        _write_json(folder / "config.json", config)
        _write_weights(folder, weights, progress)


def _write_weights(folder: Path, weights: Mapping[str, mx.array], progress: Progress) -> None:
    shards = _shards(weights)
    done, total = 0, sum(array.nbytes for array in weights.values())
    progress(done, total)
    for number, shard in enumerate(shards, start=1):
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        _save(folder / f"model{suffix}.safetensors", shard)
        done += sum(array.nbytes for array in shard.values())
        progress(done, total)


def _save(path: Path, shard: dict[str, mx.array]) -> None:
    """Writes one file. MLX gives no errno when that fails: a full disk is told by its room."""
    try:
        mx.save_safetensors(str(path), shard, metadata={"format": "mlx"})
    except RuntimeError as error:
        room = shutil.disk_usage(path.parent).free
        cause = errno.ENOSPC if room < sum(array.nbytes for array in shard.values()) else errno.EIO
        raise OSError(cause, os.strerror(cause), str(path)) from error


def _shards(weights: Mapping[str, mx.array]) -> list[dict[str, mx.array]]:
    shards: list[dict[str, mx.array]] = [{}]
    size = 0
    for name, array in sorted(weights.items()):
        if shards[-1] and size + array.nbytes > _SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    return shards


def _is_complete(target: Path) -> bool:
    """Whether the directory was published and nobody has taken a file out of it since."""
    named = all((target / name).is_file() for name in _NEEDED)
    return named and any(target.glob("model*.safetensors"))


@contextmanager
def _locked(models_dir: Path) -> Iterator[None]:
    fd = os.open(models_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _close_and_sync(folder: Path) -> None:
    """The files are their owner's alone, whatever the umask is, and on the disk."""
    for file in folder.iterdir():
        file.chmod(0o600)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    _sync_directory(folder)


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:80] or "model"


def _digest(path: Path) -> str:
    """Twelve hexadecimal digits over the file's size, its ends and the converter's version."""
    digest = hashlib.sha256(_CONVERTER)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "little"))
        for start in (0, max(0, size - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _unreported(_done: int, _total: int) -> None:
    pass
