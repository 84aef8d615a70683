"""What an answer may be, as a grammar in llguidance's dialect of Lark.

JSON is written with one space after comma and colon and none elsewhere: as chat templates print the
arguments of calls, so that a call that comes back in the next prompt is the text that was sampled,
and so that no model can wander off into white space.

Does not know tokens; see https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from dovecote_engine.errors import BadRequest
from dovecote_engine.sampling.schema_bounds import check_bounds
from dovecote_engine.text.tool_calls import JSON_CALLS

if TYPE_CHECKING:
    from dovecote_engine.request import AnswerForm, JsonSchema, Tool
    from dovecote_engine.text.tool_calls import CallFormat

__all__ = ["answer_grammar", "bound_calls", "schema_grammar"]

_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def bound_calls(own: CallFormat | None) -> CallFormat:
    """The format of calls that a grammar writes: the model's own where that is JSON in tags."""
    return own if own is not None and own.is_json and own.end else JSON_CALLS


def schema_grammar(schema: JsonSchema, field: str) -> str:
    """The grammar of one JSON value. Raises: BadRequest(field) if the schema is no JSON object, or
    beyond the bounds of `schema_bounds.py`.
    """
    return f"start: json\njson: %json {_options(schema, field)}\n"


def answer_grammar(form: AnswerForm, calls: CallFormat, *, thinks: bool) -> str | None:
    """The grammar of the answer after its reasoning; None if it may be anything.

    Raises: BadRequest with the field at fault.
    """
    start, rules = _start(form, calls)
    if start is None:
        return None
    # Models put a line or two between their reasoning and the rest.
    lead = "SPACE? " if thinks else ""
    return "\n".join([f"start: {lead}({start})", "SPACE: /[ \\n]{1,4}/", *rules, ""])


def _start(form: AnswerForm, calls: CallFormat) -> tuple[str | None, list[str]]:
    rules = []
    if form.schema is not None:
        rules.append(f"json: %json {_options(form.schema, 'response_format')}")
    if not form.tools:
        return ("json" if rules else None), rules
    if form.calls == "none":
        return ("json" if rules else "TEXT"), [*rules, _text_without(calls.start)]
    called = [*rules, *_call_rules(form.tools, calls)]
    repeated = "call (SEPARATOR call)*" if form.parallel else "call"
    if form.calls == "required":
        return repeated, called
    if form.schema is not None:
        return f"json | {repeated}", called
    if not any(tool.parameters.is_strict for tool in form.tools):
        return None, []
    # Free text until a call's start tag, which may come at any place; then the call is bound.
    lazy = f"opened[lazy]: /(.|\\n)*{_escaped(calls.start)}/"
    free = [lazy, _text_without(calls.start)]
    return "(opened inner)* TEXT", [*called, *free]


def _call_rules(tools: tuple[Tool, ...], calls: CallFormat) -> list[str]:
    """`call` with its start tag, `inner` without: one alternative for each tool."""
    rules = [
        f"call: {json.dumps(calls.start)} inner",
        'SEPARATOR: "\\n"',
        "inner: " + " | ".join(f"inner_{place}" for place in range(len(tools))),
    ]
    for place, tool in enumerate(tools):
        head = "\n" + json.dumps({"name": tool.name}, ensure_ascii=False)[:-1] + ', "arguments": '
        field = f"tools[{place}].function.parameters"
        rules += [
            f"inner_{place}: {_literal(head)} args_{place} {_literal('}' + chr(10) + calls.end)}",
            f"args_{place}: %json {_options(tool.parameters, field)}",
        ]
    return rules


def _options(schema: JsonSchema, field: str) -> str:
    """The schema with how its values are spaced."""
    try:
        parsed = json.loads(schema.text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{field} is no JSON schema", field) from error
    if not isinstance(parsed, dict):
        raise BadRequest(f"{field} is no JSON object", field)
    check_bounds(parsed, field)
    options = {**_SPACING, "lenient": not schema.is_strict}
    return json.dumps({**parsed, "x-guidance": options})


def _text_without(tag: str) -> str:
    return f"TEXT: /(.|\\n)*/ & ~/(.|\\n)*{_escaped(tag)}(.|\\n)*/"


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", "\\/")


def _literal(text: str) -> str:
    return json.dumps(text)
