"""Chat messages to token ids, and token ids to text: mlx-lm's tokenizer made safe for many threads.

Does not know models, requests or HTTP; messages are OpenAI's dictionaries.

No text of a message can become a control token. Templates are rendered to text and the text is
tokenised, so `<|im_end|>` inside a message would end the turn and let its author forge the next.
Wherever a message holds the text of a special token, a random mark is put behind its first
character; the rendered prompt is cut at the marks and the pieces are tokenised apart, which leaves
the text as it was and makes the special token unrecognisable. Prompts without such text - all but
the hostile - are tokenised in one piece, as everywhere. What this does not cover: templates whose
turns are ordinary text (`User:`), and `encode`, whose raw prompts may hold special tokens on
purpose.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jinja2
from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer

from dovecote_engine.chat_messages import plain_message
from dovecote_engine.errors import BadRequest
from dovecote_engine.text_stream import (
    BytesTextStream,
    TextStream,
    WindowTextStream,
    byte_level_bytes,
    sentencepiece_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mlx_lm.tokenizer_utils import TokenizerWrapper

__all__ = ["ChatTokenizer"]


class ChatTokenizer:
    """A model's tokenizer and chat template. Any thread.

    `eos_ids` end an answer. `vocabulary_size` counts the tokens, added ones included; a model may
    have more rows than that. `has_tools` says that the template knows tools. No token stands for
    more than `token_characters` characters of a text.
    """

    def __init__(self, wrapper: TokenizerWrapper) -> None:
        self._wrapper = wrapper
        # Encoding may set the backend's options, which fails while another thread uses it.
        self._lock = threading.Lock()
        added = wrapper.added_tokens_decoder
        self._special_ids = frozenset(number for number, token in added.items() if token.special)
        self._special = _first_characters(
            token.content
            for number, token in added.items()
            if token.special or number in wrapper.eos_token_ids
        )
        self._template = _template_source(wrapper)
        self._token_bytes, self._drops_space = _bytes_of_tokens(wrapper)
        self.eos_ids: frozenset[int] = frozenset(wrapper.eos_token_ids)
        self.vocabulary_size: int = len(wrapper)
        self.token_characters: int = max(map(len, wrapper.get_vocab()), default=0)
        self.has_tools: bool = wrapper.has_tool_calling

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> tuple[int, ...]:
        """The prompt of a chat: the messages through the template, and the assistant's turn opened.

        Content is a string, None or text parts; the arguments of tool calls are given to the
        template as objects; `developer` is `system` where the template does not know it. Without a
        template each message is `role: content` on a line of its own, and `assistant:` follows.
        Raises: BadRequest(field="messages") if there is no message, a content is not text, or the
        template refuses.
        """
        if not messages:
            raise BadRequest("a chat needs at least one message", field="messages")
        mark = f"{secrets.randbelow(10**24):024d}"
        chat = [plain_message(message, self._template) for message in messages]
        prompt = self._prompt(self._marked(chat, mark), self._marked(tools, mark))
        first, *others = prompt.split(mark)
        tokens = self._tokens(first, special=not self._wrapper.has_chat_template)
        for piece in others:
            tokens += self._tokens(piece, special=False)
        return tuple(tokens)

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a raw prompt, begun as the model's tokenizer begins one (BOS or not).

        The text of a special token becomes that token.
        """
        return tuple(self._tokens(text, special=True))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens` without special ones."""
        text: str = self._wrapper.decode(
            [token for token in tokens if token not in self._special_ids],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return text

    def text_stream(self) -> TextStream:
        """A new incremental detokenizer, for one answer."""
        if self._token_bytes is None:
            return WindowTextStream(self.decode)
        return BytesTextStream(self._bytes, drop_space=self._drops_space)

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, by itself: perhaps a part of a character. The name of a
        special one; nothing for an id without a token.
        """
        name = self._wrapper.convert_ids_to_tokens(token)
        if name is None:
            return b""
        if token in self._special_ids:
            return str(name).encode()
        if self._token_bytes is None:
            return self.decode((token,)).encode()
        return self._token_bytes(name)

    def _bytes(self, token: int) -> bytes:
        if token in self._special_ids or self._token_bytes is None:
            return b""
        name = self._wrapper.convert_ids_to_tokens(token)
        return b"" if name is None else self._token_bytes(name)

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        with self._lock:
            tokens: list[int] = self._wrapper.encode(text, add_special_tokens=special)
        return tokens

    def _prompt(self, chat: Any, tools: Any) -> str:  # noqa: ANN401 - JSON, for the template only
        if not self._wrapper.has_chat_template:
            return "".join(f"{turn['role']}: {turn['content']}\n" for turn in chat) + "assistant:"
        try:
            text: str = self._wrapper.apply_chat_template(
                chat, tools=tools or None, add_generation_prompt=True, tokenize=False
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            message = f"The model's chat template refused the messages: {error}"
            raise BadRequest(message, field="messages") from error
        return text

    def _marked(self, value: object, mark: str) -> object:
        """A copy of `value` with `mark` inside the text of every special token."""
        if isinstance(value, str):
            return self._special.sub(rf"\g<0>{mark}", value) if self._special else value
        if isinstance(value, Mapping):
            pairs = value.items()
            return {self._marked(key, mark): self._marked(item, mark) for key, item in pairs}
        if isinstance(value, list | tuple):
            return [self._marked(item, mark) for item in value]
        return value


def _first_characters(special: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the first character of every special token's text, overlapping ones included.

    A special token of one character cannot be split and is left alone.
    """
    texts = sorted((text for text in special if len(text) > 1), key=len, reverse=True)
    if not texts:
        return None
    return re.compile(rf"(?=(?:{'|'.join(map(re.escape, texts))})).", re.DOTALL)


def _template_source(wrapper: TokenizerWrapper) -> str:
    """The text of the chat template or templates; empty where it is code or absent."""
    template = wrapper.chat_template
    return json.dumps(template) if isinstance(template, dict) else template or ""


def _bytes_of_tokens(wrapper: TokenizerWrapper) -> tuple[Callable[[str], bytes] | None, bool]:
    """How to get a token's bytes, None if only decoding tells; and whether a first space drops.

    mlx-lm reads it from the decoder in tokenizer.json.
    """
    detokenizer = wrapper.detokenizer
    if isinstance(detokenizer, BPEStreamingDetokenizer):
        return byte_level_bytes, False
    if isinstance(detokenizer, SPMStreamingDetokenizer):
        return sentencepiece_bytes, detokenizer.trim_space
    return None, False
