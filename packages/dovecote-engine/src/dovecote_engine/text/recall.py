"""An assistant's message that comes back, next to the turn that is remembered of it.

Does not know templates or how prompts are rendered.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dovecote_engine.text.sections import Section, SectionReader, Tags
from dovecote_engine.text.tool_calls import JSON_CALLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dovecote_engine.request import ToolCallDelta

__all__ = ["says", "with_reasoning"]


def says(text: str, message: Mapping[str, object], think: tuple[str, str] | None) -> bool:
    """Whether `text`, as a model that writes `JSON_CALLS` said it, is what the message says:
    the same visible text, and calls of the same names with equal arguments.
    """
    reader = SectionReader(Tags(think, JSON_CALLS))
    section = reader.push(text) + reader.finish()
    return section.text == message["content"] and _calls(section) == _told(message)


def with_reasoning(message: Mapping[str, object], reasoning: str) -> dict[str, object]:
    """The message with its reasoning, for templates that show it while tools are being called.

    A client's own word, even an empty one, stays.
    """
    known = {"reasoning_content": reasoning} if reasoning else {}
    return {**known, **message}


def _calls(section: Section) -> list[tuple[str, object]]:
    names: list[str] = []
    texts: list[str] = []
    for delta in section.tool_calls:
        _add(delta, names, texts)
    return [(name, _value(text)) for name, text in zip(names, texts, strict=True)]


def _add(delta: ToolCallDelta, names: list[str], texts: list[str]) -> None:
    if delta.id is not None:
        names.append(delta.name or "")
        texts.append("")
    texts[delta.index] += delta.arguments


def _told(message: Mapping[str, object]) -> list[tuple[str, object]]:
    calls: Sequence[Mapping[str, Mapping[str, object]]] = message.get("tool_calls") or ()  # type: ignore[assignment]
    return [
        (str(call["function"].get("name")), _value(call["function"].get("arguments")))
        for call in calls
    ]


def _value(arguments: object) -> object:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
