"""Models with recurrent state, from a directory, behind a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import lfm2, mamba2
from openai import OpenAI
from server_process import ServerProcess
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from pathlib import Path

LFM2 = {
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


MAMBA2 = {
    "model_type": "mamba2",
    "num_heads": 4,
    "head_dim": 16,
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "state_size": 8,
    "num_hidden_layers": 2,
    "layer_norm_epsilon": 1e-5,
    "conv_kernel": 4,
    "n_groups": 1,
    "use_bias": False,
    "use_conv_bias": True,
    "tie_word_embeddings": False,
    "time_step_limit": [0.001, 100.0],
    "time_step_rank": "auto",
    "max_position_embeddings": 256,
}


def _save(folder: Path, module: Any, config: dict[str, Any]) -> Path:
    """A random model whose tokens are bytes."""
    folder.mkdir()
    mx.random.seed(1)
    model = module.Model(module.ModelArgs.from_dict(config))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _complete(client: OpenAI, model: str) -> tuple[str, int]:
    """An answer, and how much of its prompt was cached."""
    answer = client.completions.create(model=model, prompt="a" * 100, max_tokens=8, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    details = answer.usage.prompt_tokens_details
    assert details is not None
    return answer.choices[0].text, details.cached_tokens or 0


def test_a_model_that_cannot_be_cached_is_served_and_says_so(tmp_path: Path) -> None:
    """Equal requests get equal answers, none of it cached; log and listing tell why."""
    folder, cache_dir = _save(tmp_path / "mamba2", mamba2, MAMBA2), tmp_path / "cache"
    with ServerProcess(cache_dir, ("--model", str(folder))) as server:
        reason = server.wait_for("model_uncached")["reason"]
        assert reason == "layers that keep ArraysCache cannot be cached yet"
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
        assert client.models.retrieve("mamba2").model_extra == {"uncached": reason}
        answers = [_complete(client, "mamba2") for _ in range(2)]
        assert answers[0] == answers[1]
        assert answers[0][1] == 0
        server.terminate()
        assert server.wait() == 0
    assert not list(cache_dir.glob("pools/*"))


def test_a_model_with_a_state_beside_k_and_v_is_cached(tmp_path: Path) -> None:
    """A prompt that comes again is resumed at its last whole block, after a kill too; pool and
    checkpoints take what `--pool-size` says together.
    """
    folder, cache_dir = _save(tmp_path / "lfm2", lfm2, LFM2), tmp_path / "cache"
    options = ("--model", str(folder), "--codec", "exact", "--pool-size", "16MiB")
    answers = []
    for _ in range(2):
        with ServerProcess(cache_dir, options) as server:
            client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
            assert not client.models.retrieve("lfm2").model_extra
            answers += [_complete(client, "lfm2") for _ in range(2)]
    texts, cached = zip(*answers, strict=True)
    assert len(set(texts)) == 1
    assert cached == (0, 96, 96, 96)
    (pool,) = cache_dir.glob("pools/*.pool")
    assert pool.stat().st_size <= 12 << 20
    assert list(cache_dir.glob("pools/*.states/*.state"))
