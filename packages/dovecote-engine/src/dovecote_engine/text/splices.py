"""Puts the tokens of remembered turns where their text stands in a rendered prompt.

    ...<header>I am fine.<end>...   -->   "...<header>", [40, 744, 5193, 30], "<end>..."

A turn's text counts only between the assistant's header and a special token, so that no other text
of the conversation is taken for it. What is not found stays as it is. The pieces, put together, say
what the prompt says. Does not know templates or tokenizers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

__all__ = ["Spoken", "splice"]


@dataclass(frozen=True, slots=True)
class Spoken:
    """What an assistant said, as text, special tokens included, and as the tokens it was."""

    text: str
    tokens: Sequence[int]


def splice(
    prompt: str,
    turns: Sequence[Spoken],
    header: str,
    special: re.Pattern[str],
    *,
    continues: bool = False,
) -> list[str | Sequence[int]]:
    """The prompt in pieces, text or tokens. `turns` are in the prompt's order; if it `continues`
    the last one of its turns, that one ends with the prompt.
    """
    pieces: list[str | Sequence[int]] = []
    done = 0
    for turn in turns:
        start = _find(prompt, header + turn.text, done, special)
        if start is None and continues and prompt.endswith(header + turn.text, done):
            start = len(prompt) - len(header + turn.text)
        if start is None:
            continue
        start += len(header)
        pieces += [prompt[done:start], turn.tokens]
        done = start + len(turn.text)
    return [*pieces, prompt[done:]]


def _find(prompt: str, text: str, start: int, special: re.Pattern[str]) -> int | None:
    """Where `text` stands with a special token behind it."""
    at = prompt.find(text, start)
    while at >= 0 and not special.match(prompt, at + len(text)):
        at = prompt.find(text, at + 1)
    return at if at >= 0 else None
