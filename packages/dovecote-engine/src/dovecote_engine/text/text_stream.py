"""Turns token ids into text as they come, never half a character.

What `push` and `finish` return, joined, is what decoding all the ids at once gives, special tokens
left out. mlx-lm's detokenizers are made for a terminal: they drop the space an answer begins with,
print special tokens and lose zero bytes, so that the text of a stream would differ from that of the
same answer in one piece. Here byte-level and SentencePiece tokens go through an incremental UTF-8
decoder, a constant cost a token; any other tokenizer decodes a short window again.

One exception: where SentencePiece byte tokens do not form UTF-8, the number of replacement
characters may differ, since whole characters are not held back to see what follows them.

Does not know models or requests. A stream belongs to one thread at a time.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "BytesTextStream",
    "TextStream",
    "WindowTextStream",
    "byte_level_bytes",
    "sentencepiece_bytes",
]

REPLACEMENT: Final = "\ufffd"
# A UTF-8 character has at most 4 bytes, so at most 4 tokens can be waiting for its end. Beyond
# that the replacement characters are the text; without a bound the window would grow for ever.
_MOST_WAITING: Final = 4


class TextStream(Protocol):
    """An incremental detokenizer of one answer."""

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        ...

    def finish(self) -> str:
        """The rest: an incomplete character as U+FFFD. The stream is then used up."""
        ...


class BytesTextStream:
    """For tokenizers whose tokens are bytes: `token_bytes` gives those of one id, empty for special
    and unknown ones. `drop_space` leaves out a space at the very beginning, as SentencePiece does.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], *, drop_space: bool = False) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = drop_space

    def push(self, token: int) -> str:
        """As `TextStream.push`."""
        return self._begun(self._decoder.decode(self._token_bytes(token)))

    def finish(self) -> str:
        """As `TextStream.finish`."""
        return self._begun(self._decoder.decode(b"", final=True))

    def _begun(self, text: str) -> str:
        if self._drop_space and text:
            self._drop_space = False
            return text.removeprefix(" ")
        return text


class WindowTextStream:
    """For any tokenizer: decodes the tokens since the last complete text, and one step before them.

    The step before is needed because decoders treat the first token of a sequence in their own way.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._before: list[int] = []
        self._waiting: list[int] = []

    def push(self, token: int) -> str:
        """As `TextStream.push`."""
        self._waiting.append(token)
        text = self._new_text()
        if text.endswith(REPLACEMENT) and len(self._waiting) < _MOST_WAITING:
            return ""
        if text:
            self._before, self._waiting = self._waiting, []
        return text

    def finish(self) -> str:
        """As `TextStream.finish`."""
        text = self._new_text() if self._waiting else ""
        self._before, self._waiting = [], []
        return text

    def _new_text(self) -> str:
        known = self._decode(self._before) if self._before else ""
        return self._decode(self._before + self._waiting)[len(known) :]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte, reversed.

    Source: bytes_to_unicode in https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + rank): byte for rank, byte in enumerate(others)
    }


_BYTE_OF: Final = _byte_alphabet()


def byte_level_bytes(token: str) -> bytes:
    """The bytes of a byte-level BPE token; an added token outside the alphabet is its own text."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()


def sentencepiece_bytes(token: str) -> bytes:
    """The bytes of a SentencePiece token: `<0x0A>` is a byte, U+2581 a space."""
    if len(token) == len("<0x00>") and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes.fromhex(token[3:5])
        except ValueError:
            pass
    return token.replace("\u2581", " ").encode()
