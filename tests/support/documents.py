"""The texts of `tests/texts`: long conversations with questions to end them, and one long story.

A conversation is a file of parts, each under a line `=== role`. The parts of the role `ask` are
questions to the same history: each makes a prompt of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_TEXTS = Path(__file__).resolve().parent.parent / "texts"
_HEADING = re.compile(r"^=== (\w+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """A history, and the questions that may follow it."""

    name: str
    history: tuple[dict[str, str], ...]
    asks: tuple[str, ...]

    @property
    def chats(self) -> list[list[dict[str, str]]]:
        """The messages of each prompt."""
        return [[*self.history, {"role": "user", "content": ask}] for ask in self.asks]


def documents() -> list[Document]:
    """All conversations, by name."""
    return [_parse(path) for path in sorted((_TEXTS / "prompts").glob("*.txt"))]


def story() -> str:
    """Plain English of more than 4,500 tokens of the embedded model."""
    return (_TEXTS / "harbour.txt").read_text(encoding="utf-8")


def _parse(path: Path) -> Document:
    _, *parts = _HEADING.split(path.read_text(encoding="utf-8"))
    turns = list(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    history = tuple({"role": role, "content": text} for role, text in turns if role != "ask")
    return Document(path.stem, history, tuple(text for role, text in turns if role == "ask"))
