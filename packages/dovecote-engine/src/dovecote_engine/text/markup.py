"""How a model's answers mark their reasoning and their tool calls, as its tokenizer tells.

mlx-lm finds the tags in vocabulary and chat template. Does not know requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dovecote_engine.text.tool_calls import JSON_CALLS, CallFormat

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlx_lm.tokenizer_utils import TokenizerWrapper

__all__ = ["PLAIN", "Markup", "ThinkTags", "markup_of"]

_JSON_PARSER: Final = "mlx_lm.tool_parsers.json_tools"


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """The tags around reasoning, and their token ids: one each, or a few."""

    start: str
    end: str
    start_ids: tuple[int, ...]
    end_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Markup:
    """`think` None: the model does not reason apart. `calls` None: its template knows no tools.

    `shown_ids` are special tokens that are part of a tag: without their text no tag could be found.
    """

    think: ThinkTags | None = None
    calls: CallFormat | None = None
    shown_ids: frozenset[int] = frozenset()


PLAIN: Final = Markup()


def markup_of(wrapper: TokenizerWrapper, special_ids: Collection[int]) -> Markup:
    """The markup of a loaded tokenizer."""
    think = None
    tag_ids: set[int] = set()
    if wrapper.has_thinking:
        think = ThinkTags(
            wrapper.think_start,
            wrapper.think_end,
            tuple(wrapper.think_start_tokens),
            tuple(wrapper.think_end_tokens),
        )
        tag_ids |= {*think.start_ids, *think.end_ids}
    calls = None
    if wrapper.has_tool_calling:
        parse = wrapper.tool_parser
        is_json = parse.__module__ == _JSON_PARSER
        calls = CallFormat(wrapper.tool_call_start, wrapper.tool_call_end, parse, is_json)
        if is_json:
            calls = CallFormat(calls.start, calls.end, JSON_CALLS.parse, is_json=True)
        tag_ids |= {*wrapper.tool_call_start_tokens, *(wrapper.tool_call_end_tokens or ())}
    return Markup(think, calls, frozenset(tag_ids & set(special_ids)))
