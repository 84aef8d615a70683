"""POST /v1/tokenize, /v1/detokenize, /v1/apply-template: what the model would read.

Bodies as llama.cpp's server has them. A text that no prompt could hold is refused before it is
tokenised. Does not know the tokenizer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from dovecote_http.answers.bodies import decode_body, decode_chat
from dovecote_http.answers.calls import served_model
from dovecote_http.keys import BRIDGE
from dovecote_http.openai.chat import chat_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.served import PromptTokenizer

__all__ = ["apply_template", "detokenize", "tokenize"]

Token = Annotated[int, Meta(ge=0, lt=2**31)]

MAX_TOKENS = 2**20
"""Of one body to detokenise: more than any context."""


class TokenizeBody(Struct, frozen=True):
    """A text. `add_special`: it is the beginning of a prompt. `with_pieces`: tell each token's."""

    content: str
    add_special: bool = False
    with_pieces: bool = False


class PieceBody(Struct, frozen=True):
    """A token. Its piece is a list of bytes where these are no characters of their own."""

    id: int
    piece: str | list[int]


class Tokens(Struct, frozen=True):
    """The tokens of a text."""

    tokens: list[int | PieceBody]


class DetokenizeBody(Struct, frozen=True):
    """Token ids."""

    tokens: Annotated[list[Token], Meta(max_length=MAX_TOKENS)]


class Content(Struct, frozen=True):
    """The text of token ids, special ones included."""

    content: str


class Prompt(Struct, frozen=True):
    """A conversation as the model reads it."""

    prompt: str


async def tokenize(request: web.Request) -> web.Response:
    """The tokens of a text."""
    body = decode_body(await request.read(), TokenizeBody)
    bridge = request.app[BRIDGE]
    bridge.screen(len(body.content))
    return _json(await bridge.tokenize(partial(_tokens, body)))


async def detokenize(request: web.Request) -> web.Response:
    """The text of tokens."""
    body = decode_body(await request.read(), DetokenizeBody)
    return _json(Content(await _text(request, body.tokens)))


async def apply_template(request: web.Request) -> web.Response:
    """The prompt that a chat completion with this body would have, as text."""
    body = decode_chat(await request.read())
    served_model(request, body.model)
    return _json(Prompt(await _text(request, await chat_prompt(request, body))))


async def _text(request: web.Request, tokens: Sequence[int]) -> str:
    return await request.app[BRIDGE].tokenize(lambda tokenizer: tokenizer.verbatim(tokens))


def _tokens(body: TokenizeBody, tokenizer: PromptTokenizer) -> Tokens:
    encode = tokenizer.encode if body.add_special else tokenizer.encode_inner
    tokens = encode(body.content)
    if not body.with_pieces:
        return Tokens(list(tokens))
    return Tokens([PieceBody(token, _piece(tokenizer.token_bytes(token))) for token in tokens])


def _piece(content: bytes) -> str | list[int]:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return list(content)


def _json(body: Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
