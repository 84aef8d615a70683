"""The body of a text completion: a raw prompt, or several, as text or as token ids.

Does not know headers, the engine or the tokenizer.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from dovecote_http.answers.bodies import Count, GenerationBody, decode_body, unsupported
from dovecote_http.errors import invalid

__all__ = ["CompletionBody", "decode_completion", "prompts_of"]

MAX_PROMPTS = 16
"""Each is a request of its own in the engine's queue."""

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for completions."""

Token = Annotated[int, Meta(ge=0, lt=2**31)]


class CompletionBody(GenerationBody, frozen=True, kw_only=True):
    """The body of a text completion."""

    prompt: str | list[str | Token | list[Token]]
    max_tokens: Count = DEFAULT_MAX_TOKENS
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: int | None = None
    suffix: str | None = None


def decode_completion(raw: bytes) -> CompletionBody:
    """The validated body. Raises: ApiError (400) that names the field at fault."""
    body = decode_body(raw, CompletionBody)
    if body.suffix:
        raise unsupported("suffix")
    if body.best_of not in (None, body.n or 1):
        raise unsupported("best_of")
    if body.echo and body.logprobs is not None:
        raise invalid("'echo' together with 'logprobs' is not supported.", "echo")
    return body


def prompts_of(body: CompletionBody) -> list[str | tuple[int, ...]]:
    """The prompts, each a text or token ids. Raises: ApiError (400)."""
    prompts = _prompts_in(body.prompt)
    if not prompts or () in prompts or "" in prompts:
        raise invalid("'prompt' must not be empty.", "prompt")
    if len(prompts) > MAX_PROMPTS:
        raise invalid(f"'prompt' may hold at most {MAX_PROMPTS} prompts.", "prompt")
    return prompts


def _prompts_in(given: str | list[str | int | list[int]]) -> list[str | tuple[int, ...]]:
    if isinstance(given, str):
        return [given]
    texts = [each for each in given if isinstance(each, str)]
    tokens = [each for each in given if isinstance(each, int)]
    lists = [tuple(each) for each in given if isinstance(each, list)]
    if max(len(texts), len(tokens), len(lists)) != len(given):
        raise invalid("'prompt' mixes texts, token ids and lists of them.", "prompt")
    return [*texts, *lists] or [tuple(tokens)]
