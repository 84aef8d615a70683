"""What a chat's answer is to look like: `response_format`, `tools` and `tool_choice`, checked.

Schemas are hostile input: their size and depth are bounded here, and what is left is compiled by
the engine, within its own bounds. Does not know grammars, templates or HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from dovecote_engine.request import AnswerForm, JsonSchema, Tool
from dovecote_http.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dovecote_engine.request import Calls
    from dovecote_http.answers.bodies import ChatBody

__all__ = ["MAX_TOOLS", "answer_form", "convert_at", "shown_tools"]

MAX_TOOLS = 128
_MAX_DEPTH = 48
_MAX_SCHEMA_BYTES = 128 << 10
_MAX_TOOLS_BYTES = 384 << 10
_NAME = re.compile(r"[a-zA-Z0-9_.:/-]{1,128}")
_ANY_OBJECT: dict[str, object] = {"type": "object"}

S = TypeVar("S", bound=Struct)


class FunctionSpec(Struct, frozen=True):
    """A function that can be called."""

    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class ToolSpec(Struct, frozen=True):
    """A tool. Those of other types than "function" belong to other servers."""

    type: str
    function: FunctionSpec


class NamedFunction(Struct, frozen=True):
    """A function by its name."""

    name: str


class NamedTool(Struct, frozen=True):
    """A tool by its name."""

    type: str
    function: NamedFunction


class AllowedTools(Struct, frozen=True):
    """Some of the tools, and whether one of them must be called."""

    mode: str
    tools: list[NamedTool]


class AllowedChoice(Struct, frozen=True):
    """The choice that allows some tools."""

    allowed_tools: AllowedTools


class SchemaSpec(Struct, frozen=True):
    """A schema with a name, as clients send it."""

    schema: dict[str, object]
    strict: bool | None = None


class FormatSpec(Struct, frozen=True):
    """`schema`: some clients put it beside `json_object`."""

    type: str
    json_schema: object = None
    schema: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which tools may be called. `names` None: all of them."""

    calls: Calls
    names: frozenset[str] | None = None


def answer_form(body: ChatBody) -> AnswerForm:
    """The form of the answer. Raises: ApiError (400) that names the place at fault."""
    tools = _tools(body)
    choice = _choice(body.tool_choice, [spec.function.name for spec in tools])
    allowed = [spec for spec in tools if choice.names is None or spec.function.name in choice.names]
    return AnswerForm(
        schema=_schema(body.response_format),
        tools=tuple(_tool(spec) for spec in allowed),
        calls=choice.calls if allowed else "none",
        parallel=body.parallel_tool_calls is not False,
        is_chat=True,
        begun=body.begun,
    )


def shown_tools(body: ChatBody) -> Sequence[Mapping[str, object]] | None:
    """The tools that the prompt describes: all, whatever the choice, so that prompts of one agent
    begin alike. Raises: as `answer_form`.
    """
    tools = [msgspec.to_builtins(_shown(spec)) for spec in _tools(body)]
    return tools or None


def convert_at(value: object, kind: type[S], place: str) -> S:
    """The value as that struct. Raises: ApiError (400) that names the place at fault."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        missing = re.fullmatch(r"Object missing required field `(\w+)`", reason)
        param = place + path.rstrip("`") + (f".{missing[1]}" if missing else "")
        said = "is missing" if missing else f": {reason}"
        raise invalid(f"'{param}' {said}.".replace("' :", "':"), param) from error


def _tools(body: ChatBody) -> list[ToolSpec]:
    given = body.tools or []
    if len(given) > MAX_TOOLS:
        raise invalid(f"'tools': at most {MAX_TOOLS} tools.", "tools")
    specs: list[ToolSpec] = []
    known: set[str] = set()
    for at, each in enumerate(given):
        spec = _checked(each, f"tools[{at}]")
        if spec.function.name in known:
            place = f"tools[{at}].function.name"
            raise invalid(f"'{place}': another tool has that name.", place)
        known.add(spec.function.name)
        specs.append(spec)
    if sum(len(msgspec.json.encode(spec)) for spec in specs) > _MAX_TOOLS_BYTES:
        raise invalid(f"'tools' are longer than {_MAX_TOOLS_BYTES} bytes together.", "tools")
    return specs


def _checked(given: object, place: str) -> ToolSpec:
    if isinstance(given, dict) and given.get("type", "function") != "function":
        message = f"'{place}.type' must be 'function'."
        raise invalid(message, f"{place}.type", "unsupported_value")
    spec = convert_at(
        {"type": "function", **given} if isinstance(given, dict) else given, ToolSpec, place
    )
    if not _NAME.fullmatch(spec.function.name):
        param = f"{place}.function.name"
        raise invalid(f"'{param}': 1 to 128 letters, digits and any of _.:/-", param)
    parameters = spec.function.parameters or _ANY_OBJECT
    _bounded(parameters, f"{place}.function.parameters")
    if parameters.get("type", "object") != "object":
        param = f"{place}.function.parameters"
        raise invalid(f"'{param}': arguments are an object, so 'type' must be 'object'.", param)
    return spec


def _shown(spec: ToolSpec) -> dict[str, object]:
    function = {"name": spec.function.name, "description": spec.function.description}
    told = {key: value for key, value in function.items() if value is not None}
    return {
        "type": "function",
        "function": {**told, "parameters": spec.function.parameters or _ANY_OBJECT},
    }


def _tool(spec: ToolSpec) -> Tool:
    schema = {**_ANY_OBJECT, **(spec.function.parameters or {})}
    if "properties" in schema:
        # JSON Schema would allow any others besides, and a small model goes on inventing them.
        schema.setdefault("additionalProperties", False)
    return Tool(spec.function.name, _json_schema(schema, is_strict=bool(spec.function.strict)))


def _json_schema(schema: Mapping[str, object], *, is_strict: bool) -> JsonSchema:
    return JsonSchema(msgspec.json.encode(schema).decode(), is_strict)


def _choice(given: object, names: Sequence[str]) -> _Choice:
    choice = _read_choice(given)
    for name in sorted(choice.names or ()):
        if name not in names:
            param = "tool_choice.function.name"
            raise invalid(f"'{param}': there is no tool '{name}'.", param)
    if choice.calls == "required" and not names:
        raise invalid("'tool_choice' needs 'tools'.", "tool_choice")
    return choice


def _read_choice(given: object) -> _Choice:
    match given:
        case None | "auto":
            return _Choice("auto")
        case "none":
            return _Choice("none")
        case "required":
            return _Choice("required")
        case {"type": "allowed_tools"}:
            allowed = convert_at(given, AllowedChoice, "tool_choice").allowed_tools
            names = frozenset(tool.function.name for tool in allowed.tools)
            return _Choice("required" if allowed.mode == "required" else "auto", names)
        case {"type": "function"}:
            name = convert_at(given, NamedTool, "tool_choice").function.name
            return _Choice("required", frozenset((name,)))
    words = "'none', 'auto', 'required', or a function by its name"
    raise invalid(f"'tool_choice' must be {words}.", "tool_choice")


def _schema(given: object) -> JsonSchema | None:
    if given is None:
        return None
    wanted = convert_at(given, FormatSpec, "response_format")
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        schema = wanted.schema or _ANY_OBJECT
        _bounded(schema, "response_format.schema")
        return _json_schema(schema, is_strict=False)
    if wanted.type != "json_schema":
        message = "'response_format.type' must be 'text', 'json_object' or 'json_schema'."
        raise invalid(message, "response_format.type", "unsupported_value")
    place = "response_format.json_schema"
    if wanted.json_schema is None:
        raise invalid(f"'{place}' is missing.", place)
    spec = convert_at(wanted.json_schema, SchemaSpec, place)
    _bounded(spec.schema, f"{place}.schema")
    return _json_schema(spec.schema, is_strict=bool(spec.strict))


def _bounded(schema: Mapping[str, object], place: str) -> None:
    """Refuses a schema that is deeper or larger than any honest one."""
    level: list[object] = [schema]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            break
        level = inner
    else:
        raise invalid(f"'{place}' is nested too deeply.", place)
    if len(msgspec.json.encode(schema)) > _MAX_SCHEMA_BYTES:
        raise invalid(f"'{place}' is longer than {_MAX_SCHEMA_BYTES} bytes.", place)
