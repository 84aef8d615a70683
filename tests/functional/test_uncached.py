"""A model with recurrent state, from a directory, behind a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import lfm2
from openai import OpenAI
from server_process import ServerProcess
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "model_type": "lfm2",
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 32,
    "block_ff_dim": 64,
    "block_multiple_of": 8,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "full_attn_idxs": [1],
    "layer_types": ["conv", "full_attention", "conv"],
}


def _save_lfm2(folder: Path) -> Path:
    """A random hybrid of convolutions and attention, whose tokens are bytes."""
    folder.mkdir()
    mx.random.seed(1)
    model = lfm2.Model(lfm2.ModelArgs.from_dict(CONFIG))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_model_that_cannot_be_cached_is_served_and_says_so(tmp_path: Path) -> None:
    """Equal requests get equal answers, none of it cached; log and listing tell why."""
    folder, cache_dir = _save_lfm2(tmp_path / "lfm2"), tmp_path / "cache"
    with ServerProcess(cache_dir, ("--model", str(folder))) as server:
        reason = server.wait_for("model_uncached")["reason"]
        assert reason == "layers that keep ArraysCache cannot be cached yet"
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
        assert client.models.retrieve("lfm2").model_extra == {"uncached": reason}
        answers = [
            client.completions.create(model="lfm2", prompt="a" * 100, max_tokens=8, temperature=0)
            for _ in range(2)
        ]
        assert answers[0].choices[0].text == answers[1].choices[0].text
        for answer in answers:
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 8
            details = answer.usage.prompt_tokens_details
            assert details is not None
            assert details.cached_tokens == 0
        server.terminate()
        assert server.wait() == 0
    assert not list(cache_dir.glob("pools/*"))
