from __future__ import annotations

import threading
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import deepseek_v3, llama, mamba

from dovecote_cache import LayerShape
from dovecote_engine.errors import ModelError
from dovecote_engine.probe import probe_geometry

SIZES: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 64,
}


def tiny_llama(**changes: object) -> llama.Model:
    return llama.Model(llama.ModelArgs.from_dict({**SIZES, **changes}))


def test_the_geometry_is_that_of_the_arrays() -> None:
    """Two layers of two kv heads, each of a quarter of the width."""
    geometry = probe_geometry(tiny_llama(), block_tokens=16)
    assert geometry.layers == (LayerShape(2, 8, 8),) * 2
    assert geometry.block_tokens == 16
    assert geometry.dtype == "float32"


def test_a_head_dimension_of_its_own_is_seen() -> None:
    """Some models' heads are wider than their share of the hidden size."""
    assert probe_geometry(tiny_llama(head_dim=24)).layers[0] == LayerShape(2, 24, 24)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision_is_reported_by_name(dtype: str) -> None:
    """The element type is the one the model computes K and V in."""
    model = tiny_llama()
    model.set_dtype(getattr(mx, dtype))
    assert probe_geometry(model).dtype == dtype


def test_a_sliding_window_layer_is_refused_by_the_name_of_its_cache() -> None:
    """A rotating cache forgets tokens, so its blocks could not be resumed."""
    layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ModelError, match="RotatingKVCache cannot be cached yet"):
        probe_geometry(tiny_llama(layer_types=layer_types, sliding_window=8))


def test_a_recurrent_layer_is_refused_by_the_name_of_its_cache() -> None:
    """A state that every token overwrites has no blocks."""
    args = mamba.ModelArgs(
        model_type="mamba", vocab_size=64, hidden_size=16, intermediate_size=32, state_size=4,
        num_hidden_layers=1, conv_kernel=4, use_bias=False, use_conv_bias=True, time_step_rank=2,
    )  # fmt: skip
    with pytest.raises(ModelError, match="ArraysCache cannot be cached yet"):
        probe_geometry(mamba.Model(args))


def test_latent_k_and_v_of_different_widths_are_seen() -> None:
    """DeepSeek keeps one latent head whose two sides differ in width."""
    args = deepseek_v3.ModelArgs(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=16,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=None,
    )  # fmt: skip
    assert probe_geometry(deepseek_v3.Model(args)).layers == (LayerShape(1, 16, 8),)


def test_a_probed_model_runs_on_another_thread() -> None:
    """Nothing lazy is left that only the loading thread could evaluate."""
    model = tiny_llama(
        max_position_embeddings=64,
        rope_scaling={
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    )  # fmt: skip
    mx.eval(model.parameters())
    probe_geometry(model)
    shapes: list[tuple[int, ...]] = []
    thread = threading.Thread(target=lambda: shapes.append(tuple(evaluated(model).shape)))
    thread.start()
    thread.join()
    assert shapes == [(1, 3, 64)]


def evaluated(model: llama.Model) -> mx.array:
    logits: mx.array = model(mx.array([[1, 2, 3]]))
    mx.eval(logits)
    return logits
