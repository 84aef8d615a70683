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

Turns that this model has sampled itself are written with the tokens that they were (`splices.py`).
Where the template knows no tools, or mlx-lm has no parser for its calls, `tool_prompt.py` tells of
them in words.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jinja2
from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer
from transformers import PreTrainedTokenizerFast

from dovecote_engine.errors import BadRequest
from dovecote_engine.text.chat_messages import plain_message
from dovecote_engine.text.markup import markup_of
from dovecote_engine.text.recall import says, with_reasoning
from dovecote_engine.text.sampled_turns import SampledTurn, SampledTurns
from dovecote_engine.text.splices import Spoken, splice
from dovecote_engine.text.text_stream import (
    BytesTextStream,
    TextStream,
    WindowTextStream,
    byte_level_bytes,
    sentencepiece_bytes,
)
from dovecote_engine.text.tool_prompt import tool_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llguidance import LLTokenizer
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
        self.markup = markup_of(wrapper, self._special_ids)
        self._turns = SampledTurns()
        self._header = _assistant_header(wrapper)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        salt: bytes = b"",
        *,
        continues: bool = False,
    ) -> tuple[int, ...]:
        """The prompt of a chat: the messages through the template, and the assistant's turn opened.
        If it `continues` the last message, that is the turn, and it is left open.

        Content is a string, None or text parts; the arguments of tool calls are given to the
        template as objects; `developer` is `system` where the template does not know it. Without a
        template each message is `role: content` on a line of its own, and `assistant:` follows.
        Raises: BadRequest(field="messages") if there is no message, a content is not text, or the
        template refuses, as it does if it shows a message to be continued not once and whole.
        `salt`: whose turns may be recognised.
        """
        if not messages:
            raise BadRequest("a chat needs at least one message", field="messages")
        mark, end = _mark(), _mark()
        plain = [plain_message(message, self._template) for message in messages]
        chat, turns = self._recalled(plain, salt)
        if not self.has_tools:
            chat, tools = tool_free(chat, tools or ()), None
        if continues:
            chat[-1] = {**chat[-1], "content": f"{chat[-1]['content']}{end}"}
        prompt = self._prompt(
            self._marked(chat, mark), self._marked(tools, mark), opens=not continues
        )
        if continues:
            prompt = _until(end, prompt)
        pieces: list[str | Sequence[int]] = [prompt]
        if turns and self._header and self._special:
            pieces = splice(prompt, turns, self._header, self._special, continues=continues)
        return tuple(self._joined(pieces, mark))

    def remember(self, turn: SampledTurn, salt: bytes) -> None:
        """Keeps an answer's tokens for when it comes back as a message under that salt."""
        self._turns.remember(turn, salt)

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a raw prompt, begun as the model's tokenizer begins one (BOS or not).

        The text of a special token becomes that token.
        """
        return tuple(self._tokens(text, special=True))

    def encode_inner(self, text: str) -> tuple[int, ...]:
        """The ids of a text that stands inside a prompt: as `encode`, without its beginning."""
        return tuple(self._tokens(text, special=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens` without special ones."""
        text: str = self._wrapper.decode(
            [token for token in tokens if token not in self._special_ids],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return text

    def verbatim(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        text: str = self._wrapper.decode(
            [*tokens], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def text_stream(
        self, shown_ids: frozenset[int] = frozenset(), lead: Sequence[int] = ()
    ) -> TextStream:
        """A new incremental detokenizer, for one answer. Special tokens have no text in it, but for
        those of `shown_ids`. With a `lead` the answer goes on where those tokens end: a space that
        it begins with stays, and so does a character that began before it.
        """
        stream = self._new_stream(shown_ids)
        for token in lead:
            stream.push(token)
        return stream

    def _new_stream(self, shown_ids: frozenset[int]) -> TextStream:
        if self._token_bytes is None:
            return WindowTextStream(partial(self._decode_showing, shown_ids))
        return BytesTextStream(partial(self._bytes, shown_ids), drop_space=self._drops_space)

    def grammar_tokenizer(self) -> LLTokenizer | None:
        """The vocabulary as grammars need it; None if the tokenizer is not a fast one. Takes from
        0.4 s (49,152 tokens) to a few.
        """
        from llguidance.hf import from_tokenizer

        inner = getattr(self._wrapper, "_tokenizer", None)
        if not isinstance(inner, PreTrainedTokenizerFast):
            return None
        with self._lock:
            return from_tokenizer(inner, eos_token=sorted(self.eos_ids))

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

    def _recalled(
        self, chat: list[dict[str, object]], salt: bytes
    ) -> tuple[list[dict[str, object]], list[Spoken]]:
        """The messages as the template is to have them, and the turns among them that are known."""
        told, turns = [], []
        for message in chat:
            turn = self._turns.find(message, salt) if message["role"] == "assistant" else None
            if turn is None:
                told.append(message)
                continue
            spoken = Spoken(self.verbatim(turn.tokens), turn.tokens)
            turns.append(spoken)
            told.append(self._as_spoken(message, turn, spoken))
        return told, turns

    def _as_spoken(
        self, message: dict[str, object], turn: SampledTurn, spoken: Spoken
    ) -> dict[str, object]:
        """The message of a known turn, nearer to what was sampled, if it says the same."""
        if not turn.call_ids:
            return message
        if self.has_tools:
            return with_reasoning(message, turn.reasoning)
        think = self.markup.think
        tags = None if think is None else (think.start, think.end)
        if not says(spoken.text, message, tags):
            return message
        plain = {key: value for key, value in message.items() if key != "tool_calls"}
        return {**plain, "content": spoken.text}

    def _joined(self, pieces: Iterable[str | Sequence[int]], mark: str) -> list[int]:
        """The tokens of a prompt's pieces; those of text are cut at the marks."""
        tokens: list[int] = []
        special = not self._wrapper.has_chat_template
        for piece in pieces:
            if not isinstance(piece, str):
                tokens += piece
                continue
            for text in piece.split(mark):
                tokens += self._tokens(text, special=special)
                special = False
        return tokens

    def _decode_showing(self, shown_ids: frozenset[int], tokens: Sequence[int]) -> str:
        hidden = self._special_ids - shown_ids
        return self.verbatim([token for token in tokens if token not in hidden])

    def _bytes(self, shown_ids: frozenset[int], token: int) -> bytes:
        if token in shown_ids:
            return self.token_bytes(token)
        if token in self._special_ids or self._token_bytes is None:
            return b""
        name = self._wrapper.convert_ids_to_tokens(token)
        return b"" if name is None else self._token_bytes(name)

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        with self._lock:
            tokens: list[int] = self._wrapper.encode(text, add_special_tokens=special)
        return tokens

    def _prompt(self, chat: Any, tools: Any, *, opens: bool) -> str:  # noqa: ANN401 - JSON
        if not self._wrapper.has_chat_template:
            told = "".join(f"{turn['role']}: {turn['content']}\n" for turn in chat)
            return told + ("assistant:" if opens else "")
        try:
            text: str = self._wrapper.apply_chat_template(
                chat, tools=tools or None, add_generation_prompt=opens, tokenize=False
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


def _mark() -> str:
    """A text that no message holds."""
    return f"{secrets.randbelow(10**24):024d}"


def _until(end: str, prompt: str) -> str:
    """The prompt before that mark. Raises: BadRequest if it does not have it once."""
    begun, *rest = prompt.split(end)
    if len(rest) != 1:
        message = "The model's chat template does not let the last message be continued."
        raise BadRequest(message, field="messages")
    return begun


def _first_characters(special: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the first character of every special token's text, overlapping ones included.

    A special token of one character cannot be split and is left alone.
    """
    texts = sorted((text for text in special if len(text) > 1), key=len, reverse=True)
    if not texts:
        return None
    return re.compile(rf"(?=(?:{'|'.join(map(re.escape, texts))})).", re.DOTALL)


def _assistant_header(wrapper: TokenizerWrapper) -> str:
    """What the template puts before an answer; empty if that cannot be told."""
    if not wrapper.has_chat_template:
        return ""
    chat = [{"role": "user", "content": "Hi"}]
    try:
        closed: str = wrapper.apply_chat_template(chat, add_generation_prompt=False, tokenize=False)
        opened: str = wrapper.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError, LookupError):
        return ""
    return opened.removeprefix(closed) if opened.startswith(closed) else ""


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
