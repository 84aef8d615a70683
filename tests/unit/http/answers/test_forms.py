"""Tools, their choice and response formats: what is wanted of the engine, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dovecote_engine.request import AnswerForm, JsonSchema
from dovecote_http.answers.bodies import decode_chat
from dovecote_http.answers.forms import answer_form, shown_tools
from dovecote_http.errors import ApiError

MESSAGES = [{"role": "user", "content": "Hi"}]
OBJECT = {"type": "object"}


def form(**fields: object) -> AnswerForm:
    return answer_form(decode_chat(json.dumps({"messages": MESSAGES, **fields}).encode()))


def tool(name: str = "f", **function: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **function}}


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


NAMED = {"type": "function", "function": {"name": "g"}}


def test_without_wishes_any_text_will_do() -> None:
    """`text`, no tools and a choice of none of them are no wishes."""
    plain = AnswerForm(is_chat=True)
    assert form() == form(response_format={"type": "text"}, tools=[], tool_choice="none") == plain
    assert form(tools=None, tool_choice=None, response_format=None) == plain


@pytest.mark.parametrize(
    ("choice", "calls", "names"),
    (
        (None, "auto", ["f", "g"]),
        ("auto", "auto", ["f", "g"]),
        ("none", "none", ["f", "g"]),
        ("required", "required", ["f", "g"]),
        (NAMED, "required", ["g"]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
            "auto",
            ["g"],
        ),
    ),
)
def test_a_choice_of_tools(choice: object, calls: str, names: list[str]) -> None:
    """A named tool is required; the prompt shows all tools, whatever the choice."""
    fields: dict[str, Any] = {"tools": [tool("f"), tool("g")], "tool_choice": choice}
    wanted = form(**fields)
    assert (wanted.calls, [each.name for each in wanted.tools]) == (calls, names)
    body = decode_chat(json.dumps({"messages": MESSAGES, **fields}).encode())
    assert [each["function"]["name"] for each in shown_tools(body) or ()] == ["f", "g"]  # type: ignore[index]


def test_one_call_at_a_time_can_be_asked_for() -> None:
    assert form(tools=[tool()], parallel_tool_calls=False).parallel is False
    assert form(tools=[tool()]).parallel is True


def test_arguments_are_an_object_with_the_properties_that_are_named() -> None:
    """Others besides are possible only where the schema says so."""
    parameters = {"properties": {"x": {"type": "integer"}}}
    (named,) = form(tools=[tool(parameters=parameters, strict=True)]).tools
    assert json.loads(named.parameters.text) == {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert named.parameters.is_strict
    (free,) = form(tools=[tool(parameters={**parameters, "additionalProperties": True})]).tools
    assert json.loads(free.parameters.text)["additionalProperties"] is True
    (bare,) = form(tools=[tool()]).tools
    assert json.loads(bare.parameters.text) == OBJECT


def test_tools_are_shown_as_they_were_sent() -> None:
    """Without what concerns this server alone; `type` may be left out."""
    body = {"function": {"name": "f", "description": "Does.", "strict": True, "extra": 1}}
    decoded = decode_chat(json.dumps({"messages": MESSAGES, "tools": [body]}).encode())
    assert shown_tools(decoded) == [tool(description="Does.", parameters=OBJECT)]


@pytest.mark.parametrize(
    ("wanted", "schema"),
    (
        ({"type": "json_object"}, JsonSchema('{"type":"object"}')),
        ({"type": "json_object", "schema": {"type": "array"}}, JsonSchema('{"type":"array"}')),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": OBJECT}},
            JsonSchema('{"type":"object"}'),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": OBJECT, "strict": True}},
            JsonSchema('{"type":"object"}', is_strict=True),
        ),
    ),
)
def test_a_format_is_a_schema(wanted: object, schema: JsonSchema) -> None:
    assert form(response_format=wanted).schema == schema


@pytest.mark.parametrize(
    ("fields", "param"),
    (
        ({"tools": [tool(), {"type": "function"}]}, "tools[1].function"),
        ({"tools": [tool(), {"type": "function", "function": {}}]}, "tools[1].function.name"),
        ({"tools": [tool(), tool("g"), tool()]}, "tools[2].function.name"),
        ({"tools": [tool("")]}, "tools[0].function.name"),
        ({"tools": [tool("a b")]}, "tools[0].function.name"),
        ({"tools": [tool("f" * 129)]}, "tools[0].function.name"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters=nested(60))]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"a": "x" * 200_000})]}, "tools[0].function.parameters"),
        ({"tools": [tool(f"f{number}") for number in range(200)]}, "tools"),
        ({"tools": [tool(f"f{n}", description="x" * 50_000) for n in range(8)]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": 5}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [tool()], "tool_choice": NAMED}, "tool_choice.function.name"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": nested(60)}}},
            "response_format.json_schema.schema",
        ),
    ),
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        form(**fields)
    assert caught.value.status == 400
    assert caught.value.body.param == param
    assert f"'{param}'" in caught.value.body.message
