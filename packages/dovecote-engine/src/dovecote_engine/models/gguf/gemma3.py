"""What an mlx-lm model directory holds, taken from a GGUF file of Gemma 3's text model.

Knows names, shapes and configuration, as `gguf` does for llama. Does not write files.

What GGUF leaves unsaid is the same in every Gemma 3: each sixth layer attends to everything, the
others to a window, rotated by frequencies of their own. GGUF's norms hold the factor, mlx-lm's how
far it is from one.

Source: gemma3 in https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model.cpp
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dovecote_engine.errors import ModelError
from dovecote_engine.models.gguf.names import TensorNames
from dovecote_engine.models.gguf.values import half, quantization, real_of, size_of, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlx.core as mx

    from dovecote_engine.models.gguf.header import GgufHeader

__all__ = ["gemma3_config", "gemma3_weights"]

_WINDOW_PATTERN: Final = 6
_WINDOW_THETA: Final = 10000.0
# The 27B model scales its queries by the width of a head's share of the hidden size.
_LARGEST_LAYERS: Final = 62
_NAMES: Final = TensorNames(
    "Gemma 3",
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "attn_output": "self_attn.o_proj",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    },
)


def gemma3_config(header: GgufHeader, tensors: Mapping[str, mx.array]) -> dict[str, object]:
    """The `config.json` of a file with `header` and `tensors`.

    Raises: ModelError, naming the key, if something is missing or would change the output.
    """
    metadata = header.metadata
    hidden, heads = (_size(header, key) for key in ("embedding_length", "attention.head_count"))
    layers, head_dim = (_size(header, key) for key in ("block_count", "attention.key_length"))
    config: dict[str, object] = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": _size(header, "feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": _size(header, "attention.head_count_kv"),
        "head_dim": head_dim,
        "query_pre_attn_scalar": hidden // heads if layers == _LARGEST_LAYERS else head_dim,
        "vocab_size": vocabulary_of(header),
        "max_position_embeddings": _size(header, "context_length"),
        "rms_norm_eps": real_of(metadata, "gemma3.attention.layer_norm_rms_epsilon", None),
        "rope_theta": real_of(metadata, "gemma3.rope.freq_base", 1000000.0),
        "rope_local_base_freq": _WINDOW_THETA,
        "sliding_window": _size(header, "attention.sliding_window"),
        "sliding_window_pattern": _WINDOW_PATTERN,
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": "float16",
    }
    if scaling := _rope_scaling(header):
        config["rope_scaling"] = scaling
    if table := quantization(gemma3_weights(header, tensors)):
        config["quantization"] = table
    return config


def gemma3_weights(header: GgufHeader, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """`tensors` under mlx-lm's names and in its layout, floating ones as float16, unevaluated.

    Raises: ModelError if a tensor has no place in a Gemma 3 model.
    """
    layers = _size(header, "block_count")
    weights = {}
    for key, tensor in tensors.items():
        name = _NAMES.of(key, layers)
        weights[name] = half(tensor - 1 if name.endswith("norm.weight") else tensor)
    return weights


def _rope_scaling(header: GgufHeader) -> dict[str, object]:
    kind = header.metadata.get("gemma3.rope.scaling.type", "none")
    if kind == "none":
        return {}
    if kind == "linear":
        factor = real_of(header.metadata, "gemma3.rope.scaling.factor", None)
        return {"rope_type": "linear", "factor": factor}
    message = f"the rotary scaling {kind!r} is not supported from GGUF"
    raise ModelError(message)


def _size(header: GgufHeader, key: str) -> int:
    return size_of(header.metadata, f"gemma3.{key}")
