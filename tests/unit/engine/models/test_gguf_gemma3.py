from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model as load_mlx_model

from dovecote_engine.errors import ModelError
from dovecote_engine.models.conversion import convert_gguf
from dovecote_engine.models.gguf.tokenizer import gguf_tokenizer, tokenizer_settings
from dovecote_engine.models.loader import load_model

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, LAYERS, WINDOW = 32, 4, 2, 16, 64, 7, 16
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["\u2581", "h", "e", "l", "o", "he", "ll", "hell", "hello", "\u2581hello", "el"]
TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>", "\n\n", *BYTES, *PIECES]
KINDS = [3, 3, 3, 3, 3, 4, *[6] * 256, *[1] * len(PIECES)]
SCORES = [*[-1000.0] * 262, *[-float(rank) for rank in (20, 21, 22, 23, 24, 1, 2, 3, 4, 5, 0)]]


def metadata(**changes: object) -> dict[str, Any]:
    """What a tiny Gemma 3's GGUF says; `__` stands for a dot, None leaves the key out."""
    numbers = {
        "block_count": LAYERS,
        "embedding_length": HIDDEN,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.sliding_window": WINDOW,
        "context_length": 256,
    }
    known: dict[str, Any] = {
        f"gemma3.{key}": mx.array(number, mx.uint32) for key, number in numbers.items()
    }
    known |= {
        "general.architecture": "gemma3",
        "gemma3.attention.layer_norm_rms_epsilon": mx.array(1e-6, mx.float32),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": mx.array(KINDS, mx.int32),
        "tokenizer.ggml.scores": mx.array(SCORES, mx.float32),
        "tokenizer.ggml.bos_token_id": mx.array(2, mx.uint32),
        "tokenizer.ggml.eos_token_id": mx.array(1, mx.uint32),
        "tokenizer.ggml.unknown_token_id": mx.array(3, mx.uint32),
        "tokenizer.ggml.add_bos_token": mx.array(True),
        "tokenizer.ggml.add_space_prefix": mx.array(False),
    }
    known |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in known.items() if value is not None}


def plain(**changes: object) -> dict[str, Any]:
    """The metadata as a header gives it."""
    return {
        key: value.tolist() if isinstance(value, mx.array) else value
        for key, value in metadata(**changes).items()
    }


def weights() -> dict[str, mx.array]:
    shapes: dict[str, tuple[int, ...]] = {
        "attn_q": (HEADS * HEAD_DIM, HIDDEN),
        "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD_DIM),
        "ffn_gate": (FEED_FORWARD, HIDDEN),
        "ffn_up": (FEED_FORWARD, HIDDEN),
        "ffn_down": (HIDDEN, FEED_FORWARD),
    }
    norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    shapes |= dict.fromkeys(norms, (HIDDEN,))
    shapes |= dict.fromkeys(("attn_q_norm", "attn_k_norm"), (HEAD_DIM,))
    named = {
        f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in shapes.items()
    }
    named |= {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    mx.random.seed(7)
    return {
        name: mx.random.normal(shape) * 0.1 + 1.0 * (len(shape) == 1)
        for name, shape in named.items()
    }


def tiny_gguf(path: Path, **changes: Any) -> Path:
    mx.save_gguf(str(path), weights(), metadata(**changes))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_gemma_3_file_is_served_from_the_pool(tiny: Path, tmp_path: Path) -> None:
    """Each sixth layer sees everything, the others their window, and all of them are cached."""
    loaded = load_model(str(tiny), models_dir=tmp_path)
    windows = [layer.window for layer in loaded.geometry.layers]
    assert windows == [WINDOW] * 5 + [0] + [WINDOW]
    assert not loaded.uncached
    assert loaded.context_tokens == 256
    assert loaded.eos_ids == {1, 4}


def test_norms_are_kept_as_their_distance_from_one(tiny: Path, tmp_path: Path) -> None:
    """mlx-lm's Gemma adds one to what it finds; everything else is as it was."""
    model, _ = load_mlx_model(convert_gguf(tiny, tmp_path))
    given = weights()
    for found, name in (
        (model.model.norm.weight, "output_norm"),
        (model.model.layers[2].self_attn.q_norm.weight, "blk.2.attn_q_norm"),
        (model.model.layers[6].pre_feedforward_layernorm.weight, "blk.6.ffn_norm"),
    ):
        wanted = given[f"{name}.weight"] - 1
        assert mx.allclose(found.astype(mx.float32), wanted, rtol=1e-3, atol=1e-3).item()
    same = given["blk.1.attn_k.weight"].astype(mx.float16)
    assert mx.array_equal(model.model.layers[1].self_attn.k_proj.weight, same)


def test_the_largest_gemma_scales_its_queries_by_the_hidden_size(tmp_path: Path) -> None:
    """It is told by its 62 layers, as llama.cpp tells it; linear rotation comes along."""
    changes = {
        "gemma3__block_count": mx.array(62, mx.uint32),
        "gemma3__rope__scaling__type": "linear",
        "gemma3__rope__scaling__factor": mx.array(8.0, mx.float32),
    }
    folder = convert_gguf(tiny_gguf(tmp_path / "large.gguf", **changes), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["query_pre_attn_scalar"] == HIDDEN // HEADS
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"gemma3__attention__sliding_window": None}, "sliding_window"),
        ({"gemma3__rope__scaling__type": "yarn"}, "yarn"),
        ({"gemma3__block_count": mx.array(3, mx.uint32)}, "no place in a Gemma 3"),
        ({"tokenizer__ggml__add_space_prefix": None}, "space first"),
        ({"tokenizer__ggml__scores": None}, "score for each"),
    ),
)
def test_what_cannot_be_served_right_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """A silent guess would answer nonsense."""
    with pytest.raises(ModelError, match=message):
        convert_gguf(tiny_gguf(tmp_path / "odd.gguf", **changes), tmp_path)


@pytest.mark.parametrize(
    ("text", "tokens"),
    (
        ("hello", ["<bos>", "h", "el", "l", "o"]),
        ("hehe", ["<bos>", "he", "he"]),
        ("\n\nll o", ["<bos>", "\n\n", "ll", "\u2581", "o"]),
        ("<end_of_turn>he", ["<bos>", "<end_of_turn>", "he"]),
        ("\xe9", ["<bos>", "<0xC3>", "<0xA9>"]),
    ),
)
def test_text_is_merged_by_the_best_token_first(text: str, tokens: list[str]) -> None:
    """The scores decide; whole tokens are found first; what is unknown is its bytes."""
    tokenizer = gguf_tokenizer(plain())
    encoding = tokenizer.encode(text)
    assert encoding.tokens == tokens
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == "<bos>" + text


def test_the_end_of_a_turn_ends_an_answer() -> None:
    """Instruction-tuned Gemmas end a turn with a token that is not the end of the text."""
    settings, ends = tokenizer_settings(plain())
    assert ends == [1, 4]
    assert settings["model_max_length"] == 256
