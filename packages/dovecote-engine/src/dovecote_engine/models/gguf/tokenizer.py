"""A Hugging Face `tokenizer.json` and its settings, from the metadata of a GGUF file.

Covers byte-level BPE (`tokenizer.ggml.model` = gpt2) with the pre-tokenizers named in
`_PRE_TOKENIZERS`, and SentencePiece's BPE (llama) as Gemma has it, which puts no space before a
text; a wrong split of the text would silently make other tokens, so an unknown one is refused. Does
not know weights or files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from dovecote_engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dovecote_engine.models.gguf.header import Value

__all__ = ["gguf_tokenizer", "tokenizer_settings"]

_PREFIX: Final = "tokenizer.ggml."
_CONTROL: Final = 3
_USER_DEFINED: Final = 4
_BYTE: Final = 6
# Tokens that no merge makes: they are found as a whole, or stand in for what is not found.
_UNMADE: Final = (_CONTROL, _BYTE)
# Llama 3's split, as its tokenizer.json has it.
_LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS: Final = ("smollm", "gpt-2", "default", "llama-bpe")
# Control tokens that end an answer whatever `eos_token_id` says: a model that was trained on
# documents may end with its document mark where a chat would end its turn.
_ENDS: Final = (
    "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>",
)  # fmt: skip
_SPACE: Final = "\u2581"


def gguf_tokenizer(metadata: Mapping[str, Value]) -> Tokenizer:
    """The tokenizer that `metadata` describes.

    Raises: ModelError, naming what is unsupported or inconsistent.
    """
    tokens, kinds = _tokens(metadata)
    if metadata.get(_PREFIX + "model") == "llama":
        tokenizer = _sentencepiece(metadata, tokens, kinds)
    else:
        tokenizer = _byte_level(metadata, tokens)
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in {_CONTROL, _USER_DEFINED}:
            tokenizer.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
    _begin_with_bos(tokenizer, metadata, tokens)
    return tokenizer


def _byte_level(metadata: Mapping[str, Value], tokens: list[str]) -> Tokenizer:
    _require_byte_level(metadata)
    pre = metadata.get(_PREFIX + "pre", "default")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=_merges(metadata, set(tokens)),
            ignore_merges=pre == "llama-bpe",
        )
    )
    tokenizer.pre_tokenizer = _pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(metadata: Mapping[str, Value], tokens: list[str], kinds: list[int]) -> Tokenizer:
    if metadata.get(_PREFIX + "add_space_prefix", True) is not False:
        message = "GGUF tokenizers of the model 'llama' that put a space first are not supported"
        raise ModelError(message)
    unknown = _token_id(metadata, "unknown_token_id", tokens)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=_merges_by_score(_scores(metadata, tokens), kinds),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def tokenizer_settings(metadata: Mapping[str, Value]) -> tuple[dict[str, object], list[int]]:
    """The `tokenizer_config.json`, chat template included, and the ids that end an answer."""
    tokens, kinds = _tokens(metadata)
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get(f"{metadata.get('general.architecture')}.context_length"),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        if (number := _token_id(metadata, f"{key}_token_id", tokens)) is not None:
            settings[f"{name}_token"] = tokens[number]
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    ends = [_token_id(metadata, f"{key}_token_id", tokens) for key in ("eos", "eot", "eom")]
    ends += [
        number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == _CONTROL and token in _ENDS
    ]
    return settings, [number for number in dict.fromkeys(ends) if number is not None]


def _require_byte_level(metadata: Mapping[str, Value]) -> None:
    model, pre = metadata.get(_PREFIX + "model"), metadata.get(_PREFIX + "pre", "default")
    if model != "gpt2":
        message = f"GGUF tokenizers of the model {model!r} are not supported, only 'gpt2'"
        raise ModelError(message)
    if pre not in _PRE_TOKENIZERS:
        message = f"the GGUF pre-tokenizer {pre!r} is not one of {', '.join(_PRE_TOKENIZERS)}"
        raise ModelError(message)


def _tokens(metadata: Mapping[str, Value]) -> tuple[list[str], list[int]]:
    """The tokens by id and the type of each, of equal length and without duplicates."""
    tokens = metadata.get(_PREFIX + "tokens")
    kinds = metadata.get(_PREFIX + "token_type")
    if not isinstance(tokens, list) or not isinstance(kinds, list) or len(tokens) != len(kinds):
        message = "the GGUF metadata has no list of tokens with a type for each"
        raise ModelError(message)
    names = [str(token) for token in tokens]
    if len(set(names)) != len(names) or "" in names:
        message = "the GGUF metadata lists a token twice, or an empty one"
        raise ModelError(message)
    return names, [int(kind) for kind in kinds]


def _merges(metadata: Mapping[str, Value], tokens: set[str]) -> list[tuple[str, str]]:
    merges = metadata.get(_PREFIX + "merges")
    if not isinstance(merges, list):
        message = "the GGUF metadata has no list of merges"
        raise ModelError(message)
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        left, _, right = str(merge).partition(" ")
        if not {left, right, left + right} <= tokens:
            message = f"the GGUF merge {merge!r} names a token that is not in the vocabulary"
            raise ModelError(message)
        pairs.append((left, right))
    return pairs


def _scores(metadata: Mapping[str, Value], tokens: list[str]) -> dict[str, float]:
    scores = metadata.get(_PREFIX + "scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        message = "the GGUF metadata has no list of tokens with a score for each"
        raise ModelError(message)
    return dict(zip(tokens, map(float, scores), strict=True))


def _merges_by_score(scores: Mapping[str, float], kinds: list[int]) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, those of the best tokens first.

    SentencePiece merges the pair that makes the best token; ties go to the leftmost, which the
    order among the pairs of one token does not touch.
    """
    made = [token for token, kind in zip(scores, kinds, strict=True) if kind not in _UNMADE]
    parts = set(made)
    return [
        (token[:cut], token[cut:])
        for token in sorted(made, key=lambda token: -scores[token])
        for cut in range(1, len(token))
        if token[:cut] in parts and token[cut:] in parts
    ]


def _pre_tokenizer(name: object) -> pre_tokenizers.PreTokenizer:
    if name == "smollm":
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if name == "llama-bpe":
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _begin_with_bos(tokenizer: Tokenizer, metadata: Mapping[str, Value], tokens: list[str]) -> None:
    number = _token_id(metadata, "bos_token_id", tokens)
    if metadata.get(_PREFIX + "add_bos_token") is not True or number is None:
        return
    bos = tokens[number]
    begin = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, number)])
    if metadata.get(_PREFIX + "model") == "llama":
        tokenizer.post_processor = begin
    else:
        tokenizer.post_processor = processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), begin]
        )


def _token_id(metadata: Mapping[str, Value], key: str, tokens: list[str]) -> int | None:
    number = metadata.get(_PREFIX + key)
    if number is None:
        return None
    if isinstance(number, int) and 0 <= number < len(tokens):
        return number
    message = f"GGUF metadata {_PREFIX}{key} is {number!r}, not a token of the vocabulary"
    raise ModelError(message)
