from __future__ import annotations

import threading
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import deepseek_v3, llama, mamba
from mlx_lm.models.cache import KVCache

from dovecote_cache import Geometry, LayerShape
from dovecote_engine.errors import ModelError
from dovecote_engine.models.probe import Findings, probe, probe_geometry

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


def test_a_sliding_window_layer_has_its_window() -> None:
    """A rotating cache forgets tokens; how soon is part of the geometry."""
    layer_types = ["full_attention", "sliding_attention"]
    geometry = probe_geometry(tiny_llama(layer_types=layer_types, sliding_window=8))
    assert geometry.layers == (LayerShape(2, 8, 8), LayerShape(2, 8, 8, window=8))


def tiny_mamba() -> mamba.Model:
    args = mamba.ModelArgs(
        model_type="mamba", vocab_size=64, hidden_size=16, intermediate_size=32, state_size=4,
        num_hidden_layers=1, conv_kernel=4, use_bias=False, use_conv_bias=True, time_step_rank=2,
    )  # fmt: skip
    return mamba.Model(args)


def test_a_recurrent_layer_is_refused_by_the_name_of_its_cache() -> None:
    """A state that every token overwrites has no blocks."""
    with pytest.raises(ModelError, match="ArraysCache cannot be cached yet"):
        probe_geometry(tiny_mamba())


def test_what_cannot_be_cached_is_said_and_has_no_shape() -> None:
    """The model may be served all the same: the findings are a reason, not an error."""
    findings = probe(tiny_mamba(), block_tokens=16)
    assert findings.uncached == "layers that keep ArraysCache cannot be cached yet"
    assert findings.geometry == Geometry((LayerShape(1, 1, 1),), "float32", 16)


@pytest.mark.parametrize("sliding_window", (8, None))
def test_a_model_of_plain_k_and_v_agrees_with_itself_over_a_slab(
    sliding_window: int | None,
) -> None:
    """Windowed or not, its logits over a slab are those over mlx-lm's caches."""
    kinds = ["full_attention", "sliding_attention" if sliding_window else "full_attention"]
    model = tiny_llama(layer_types=kinds, sliding_window=sliding_window)
    assert not probe(model).uncached


class Peeking(llama.Model):  # type: ignore[misc]
    """A model that wants of its caches what a slab has not."""

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        logits: mx.array = super().__call__(inputs, cache)
        return logits if cache is None else logits + 0 * cache[0].keys.sum()


class Forgetful(llama.Model):  # type: ignore[misc]
    """A model that computes something else over caches that are not mlx-lm's."""

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        is_own = cache is None or type(cache[0]) is KVCache
        logits: mx.array = super().__call__(inputs, cache if is_own else None)
        return logits


@pytest.mark.parametrize(
    ("kind", "reason"), ((Peeking, "cannot run over"), (Forgetful, "something else over"))
)
def test_a_model_that_a_slab_would_change_is_not_cached(
    kind: type[llama.Model], reason: str
) -> None:
    """Caches of a known kind are no promise: the model is tried before it is trusted."""
    assert reason in probe(kind(llama.ModelArgs.from_dict(SIZES))).uncached


def test_latent_k_and_v_of_different_widths_are_seen() -> None:
    """DeepSeek keeps one latent head whose two sides differ in width."""
    args = deepseek_v3.ModelArgs(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=16,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=None,
    )  # fmt: skip
    model = deepseek_v3.Model(args)
    mx.eval(model.parameters())
    assert probe(model) == Findings(Geometry((LayerShape(1, 16, 8),), "float32"))


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
