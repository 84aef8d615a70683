"""What an mlx-lm model directory holds, taken from a GGUF file of the llama architecture.

Weights stay quantised as the file has them: Q4_0 and Q4_1 become MLX's affine 4-bit and Q8_0 its
8-bit format, both in groups of 32 and without loss; what MLX reads by dequantising stays float16.
Knows names, shapes and configuration. Does not write files (`conversion`) and does not know the
tokenizer (`gguf_tokenizer`).

GGUF stores the rows of each query and key head interleaved, for rotation of neighbouring pairs.
They are put back into halves here, so that the directory looks as one converted from the original
model would (`rope_traditional` stays false).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import mlx.core as mx

from dovecote_engine.errors import ModelError
from dovecote_engine.models.gguf.names import TensorNames
from dovecote_engine.models.gguf.rope import llama3_scaling
from dovecote_engine.models.gguf.values import half, quantization, real_of, size_of, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dovecote_engine.models.gguf.header import GgufHeader

__all__ = ["LlamaShape", "llama_config", "llama_shape", "llama_weights", "read_tensors"]

_NAMES: Final = TensorNames(
    "llama",
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    },
)
_ROPE_FACTORS: Final = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The sizes of a llama model, checked to be positive and to fit each other."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context_tokens: int


def llama_shape(header: GgufHeader) -> LlamaShape:
    """The sizes that `header` declares.

    Raises: ModelError, naming the architecture or the key, if the file is not a llama model whose
    layers are all alike, or uses a feature that would silently change its output.
    """
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        message = f"GGUF files of the architecture {architecture!r} are not supported yet"
        raise ModelError(message)
    hidden = size_of(metadata, "llama.embedding_length")
    heads = size_of(metadata, "llama.attention.head_count")
    shape = LlamaShape(
        layers=size_of(metadata, "llama.block_count"),
        hidden=hidden,
        feed_forward=size_of(metadata, "llama.feed_forward_length"),
        heads=heads,
        kv_heads=size_of(metadata, "llama.attention.head_count_kv", heads),
        head_dim=size_of(metadata, "llama.attention.key_length", hidden // heads),
        vocabulary=vocabulary_of(header),
        context_tokens=size_of(metadata, "llama.context_length"),
    )
    _refuse_unsupported(header, shape)
    return shape


def llama_config(header: GgufHeader, tensors: Mapping[str, mx.array]) -> dict[str, object]:
    """The `config.json` of a file with `header` and `tensors`.

    Raises: ModelError if its rotary factors are not Llama 3's.
    """
    metadata, shape = header.metadata, llama_shape(header)
    theta = real_of(metadata, "llama.rope.freq_base", 10000.0)
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.feed_forward,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context_tokens,
        "rms_norm_eps": real_of(metadata, "llama.attention.layer_norm_rms_epsilon", None),
        "rope_theta": theta,
        "rope_traditional": False,
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": "float16",
    }
    if _ROPE_FACTORS in tensors:
        factors = tensors[_ROPE_FACTORS].reshape(-1).tolist()
        config["rope_scaling"] = llama3_scaling(cast("list[float]", factors), theta)
    if table := quantization(llama_weights(tensors, shape)):
        config["quantization"] = table
    return config


def read_tensors(path: Path) -> dict[str, mx.array]:
    """The tensors of `path` under GGUF's names; quantised ones as weight, scales and biases.

    Only for a file whose header `read_header` accepted: MLX does not check it.
    Raises: ModelError if MLX cannot read the file.
    """
    try:
        return cast("dict[str, mx.array]", mx.load(str(path)))
    except (RuntimeError, ValueError) as error:
        message = f"{path} cannot be read: {error}"
        raise ModelError(message) from error


def llama_weights(tensors: Mapping[str, mx.array], shape: LlamaShape) -> dict[str, mx.array]:
    """`tensors` under mlx-lm's names and in its layout. Does not evaluate them.

    Everything floating is float16, so that a quantised model computes in float16 throughout.
    Raises: ModelError if a tensor has no place in a llama model.
    """
    named = {_NAMES.of(key, shape.layers): key for key in tensors if key != _ROPE_FACTORS}
    return {name: half(_in_halves(name, tensors[key], shape)) for name, key in named.items()}


def _in_halves(name: str, tensor: mx.array, shape: LlamaShape) -> mx.array:
    """Undoes GGUF's interleaving of query and key rows; other tensors pass unchanged."""
    if ".q_proj." in name:
        heads = shape.heads
    elif ".k_proj." in name:
        heads = shape.kv_heads
    else:
        return tensor
    if tensor.ndim != 2 or tensor.shape[0] != heads * shape.head_dim:
        message = f"{name} has the shape {tensor.shape}, which is not {heads} heads"
        raise ModelError(message)
    pairs = tensor.reshape(heads, shape.head_dim // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _refuse_unsupported(header: GgufHeader, shape: LlamaShape) -> None:
    metadata = header.metadata
    rotated = metadata.get("llama.rope.dimension_count", shape.head_dim)
    if rotated != shape.head_dim or shape.head_dim % 2:
        message = "rotation of a part of each head only is not supported"
        raise ModelError(message)
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        message = f"the rotary scaling {scaling!r} is not supported from GGUF"
        raise ModelError(message)
    if metadata.get("llama.expert_count", 0):
        message = "mixtures of experts are not supported from GGUF"
        raise ModelError(message)
