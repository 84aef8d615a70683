"""Constraints over a vocabulary of single bytes, and one token that ends an answer."""

from __future__ import annotations

import json
import random
from typing import ClassVar

import mlx.core as mx
import pytest
from llguidance import LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

from dovecote_engine.errors import BadRequest
from dovecote_engine.request import AnswerForm, JsonSchema, Sampling, Tool
from dovecote_engine.sampling.constraint import (
    Constraint,
    GrammarCompiler,
    NoTokenFits,
    RowConstraint,
    Thinking,
)
from dovecote_engine.sampling.grammar import answer_grammar
from dovecote_engine.sampling.sampler import RowSampler, Sampled, sample
from dovecote_engine.text.tool_calls import JSON_CALLS

EOS = 256
VOCABULARY = 300
OPEN, CLOSE = 257, 258
PERSON = JsonSchema(
    json.dumps(
        {
            "type": "object",
            "properties": {"age": {"type": "integer"}},
            "required": ["age"],
            "additionalProperties": False,
        }
    )
)
MANY: dict[str, object] = {
    "type": "object",
    "properties": {f"k{number}": {"type": "string"} for number in range(2000)},
    "additionalProperties": False,
}
"""Any of its properties may come first: more ways to begin than a grammar may have."""


class Bytes:
    """A tokenizer with a token for each byte."""

    eos_token_id = EOS
    bos_token_id = None
    tokens: ClassVar = [*(bytes([byte]) for byte in range(256)), b"<eos>", b"<open>", b"<close>"]
    special_token_ids: ClassVar = [EOS, OPEN, CLOSE]

    def __call__(self, text: bytes) -> list[int]:
        return [*text]


COMPILER = GrammarCompiler(lambda: LLTokenizer(TokenizerWrapper(Bytes())))


def compiled(form: AnswerForm, thinking: Thinking | None = None) -> Constraint:
    grammar = answer_grammar(form, JSON_CALLS, thinks=thinking is not None)
    assert grammar is not None
    return COMPILER.compile(grammar, "response_format", thinking)


def allowed(row: RowConstraint) -> set[int]:
    logits = row.apply(mx.zeros(VOCABULARY))
    return {token for token, logit in enumerate(logits.tolist()) if logit == 0}  # type: ignore[arg-type]


def take(row: RowConstraint, text: str) -> None:
    """Notes the bytes of the text, each of which is allowed."""
    for byte in text.encode():
        assert byte in allowed(row), text
        row.note(byte)


def test_a_schema_leaves_only_what_it_allows() -> None:
    """Keys, spacing and types are forced; at the end nothing but the end is left."""
    row = compiled(AnswerForm(PERSON)).begin()
    take(row, '{"age": ')
    assert allowed(row) == {*b"-0123456789"}
    take(row, "42}")
    assert allowed(row) == {EOS}


def test_tokens_beyond_the_tokenizers_vocabulary_are_never_allowed() -> None:
    """A model may have more rows than there are tokens."""
    row = compiled(AnswerForm(JsonSchema('{"type": "string"}'))).begin()
    take(row, '"')
    assert max(allowed(row)) < EOS


def test_rows_of_one_constraint_do_not_disturb_each_other() -> None:
    constraint = compiled(AnswerForm(PERSON))
    one, other = constraint.begin(), constraint.begin()
    take(one, '{"age": 1}')
    take(other, '{"age": ')
    assert allowed(one) != allowed(other)


def test_a_required_call_is_the_whole_answer() -> None:
    """Every tool may be called, more than once unless that is forbidden."""
    tools = (Tool("grow", PERSON), Tool("stop", JsonSchema('{"type": "object"}')))
    call = '<tool_call>\n{"name": "grow", "arguments": {"age": 1}}\n</tool_call>'
    many = compiled(AnswerForm(tools=tools, calls="required")).begin()
    take(many, call)
    assert allowed(many) == {EOS, ord("\n")}
    take(many, "\n" + '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>')
    one = compiled(AnswerForm(tools=tools, calls="required", parallel=False)).begin()
    take(one, call)
    assert allowed(one) == {EOS}


def test_text_without_calls_cannot_open_one() -> None:
    row = compiled(AnswerForm(tools=(Tool("grow", PERSON),), calls="none")).begin()
    take(row, "a <tool_call")
    assert ord(">") not in allowed(row)
    assert {ord("x"), EOS} <= allowed(row)


def test_a_strict_tool_is_bound_once_it_is_called() -> None:
    """Text is free until a call begins."""
    strict = Tool("grow", JsonSchema(PERSON.text, is_strict=True))
    row = compiled(AnswerForm(tools=(strict,), calls="auto")).begin()
    take(row, 'Well, {"x')
    assert EOS in allowed(row)
    take(row, '<tool_call>\n{"name": "grow", "arguments": {"age": ')
    assert allowed(row) == {*b"-0123456789"}


def test_tools_that_are_not_strict_bind_nothing_by_themselves() -> None:
    form = AnswerForm(tools=(Tool("grow", PERSON),), calls="auto")
    assert answer_grammar(form, JSON_CALLS, thinks=False) is None


def test_an_answer_with_a_schema_may_be_a_call_instead() -> None:
    form = AnswerForm(PERSON, tools=(Tool("grow", PERSON),), calls="auto")
    assert allowed(compiled(form).begin()) == {*b"{<"}


def test_reasoning_is_free_and_the_rest_is_bound() -> None:
    """The first token may open it; after its end a line or two may come."""
    row = compiled(AnswerForm(PERSON), Thinking((OPEN,), (CLOSE,), is_open=False)).begin()
    assert allowed(row) == {OPEN, *b"{ \n"}
    row.note(OPEN)
    assert len(allowed(row)) == VOCABULARY
    for token in (*b"anything", CLOSE):
        row.note(token)
    take(row, '\n\n{"age": 1}')


def test_reasoning_that_the_prompt_opened_is_free_at_once() -> None:
    row = compiled(AnswerForm(PERSON), Thinking((OPEN,), (*b"</t>",), is_open=True)).begin()
    for token in b'{"x" <t> and </t>':
        row.note(token)
    assert allowed(row) == {*b"{ \n"}


@pytest.mark.parametrize(
    ("schema", "strict"),
    (
        ({"type": "objekt"}, False),
        ({"$ref": "#/$defs/nowhere"}, False),
        ({"$ref": "http://127.0.0.1:1/x"}, False),
        ({"type": "object", "properties": 5}, False),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, False),
        ({"not": {"type": "string"}}, True),
        ({"type": "string", "pattern": "("}, False),
        (MANY, False),
    ),
)
def test_what_no_grammar_can_hold_to_is_refused_by_name(
    schema: dict[str, object], strict: bool
) -> None:
    """An unsupported word is ignored where the schema is not strict; nonsense never is."""
    with pytest.raises(BadRequest) as caught:
        compiled(AnswerForm(JsonSchema(json.dumps(schema), strict)))
    assert caught.value.field == "response_format"


def test_words_that_are_not_supported_are_left_to_the_model_unless_strict() -> None:
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    assert compiled(AnswerForm(JsonSchema(json.dumps(schema)))).begin()


def test_a_grammar_beyond_all_size_is_refused() -> None:
    with pytest.raises(BadRequest, match="too large"):
        COMPILER.compile("x" * (1 << 20), "tools")


def test_a_tokenizer_without_a_vocabulary_allows_no_constraint() -> None:
    with pytest.raises(BadRequest):
        GrammarCompiler(lambda: None).compile("start: /a/", "response_format")


def test_a_token_against_the_grammar_is_a_fault() -> None:
    row = compiled(AnswerForm(PERSON)).begin()
    with pytest.raises(NoTokenFits):
        row.note(ord("x"))


def _answer(form: AnswerForm, seed: int, temperature: float = 1.0) -> str:
    """What random logits come to under the form."""
    constraint = compiled(form).begin()
    sampler = RowSampler(
        Sampling(temperature, top_p=0.9, top_k=200, seed=seed), constraint=constraint
    )
    mx.random.seed(seed)
    said: list[int] = []
    while EOS not in said and len(said) < 4000:
        (sampled,) = sample(mx.random.normal((1, VOCABULARY)), [sampler])
        assert isinstance(sampled, Sampled)
        said.append(sampled.token)
    assert said[-1] == EOS
    return bytes(said[:-1]).decode()


@pytest.mark.parametrize("temperature", (0.0, 1.0))
def test_a_random_model_writes_what_the_schema_says(temperature: float) -> None:
    """Whatever the logits are, at any temperature, with top_k and top_p besides."""
    schema = {
        "type": "object",
        "properties": {
            "sort": {"enum": ["dove", "crow"]},
            "weights": {
                "type": "array",
                "items": {"type": "boolean"},
                "minItems": 2,
                "maxItems": 3,
            },
        },
        "required": ["sort", "weights"],
        "additionalProperties": False,
    }
    for seed in range(3):
        bird = json.loads(_answer(AnswerForm(JsonSchema(json.dumps(schema))), seed, temperature))
        assert bird["sort"] in ("dove", "crow")
        assert len(bird["weights"]) in (2, 3)


def test_rows_without_a_constraint_get_what_they_would_have_got() -> None:
    """A constrained neighbour changes no other row of the batch."""
    logits = mx.random.normal((3, VOCABULARY))
    seeds = random.Random(1).sample(range(100), 3)

    def samplers(constraint: RowConstraint | None) -> list[RowSampler]:
        return [
            RowSampler(Sampling(0.0)),
            RowSampler(Sampling(1.0, seed=seeds[0]), constraint=constraint),
            RowSampler(Sampling(0.7, seed=seeds[1])),
        ]

    free = sample(logits, samplers(None))
    bound = sample(logits, samplers(compiled(AnswerForm(PERSON)).begin()))
    assert [free[0], free[2]] == [bound[0], bound[2]]
    assert samplers(None)[0].is_plain
    assert bound[1] == Sampled(ord("{"))


def _object(**properties: object) -> dict[str, object]:
    closed = {"required": [*properties], "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed}


def _multiple(value: float) -> dict[str, object]:
    return {"type": "number", "multipleOf": value}


@pytest.mark.parametrize(
    "schema",
    (
        _multiple(99_991),
        _multiple(10**300),
        {"allOf": [_multiple(value) for value in (97, 89, 83)]},
        _object(a=_multiple(0.001), b=_object(c=_multiple(999))),
        {"items": {"properties": {f"k{number}": True for number in range(4400)}}},
        _object(
            **{
                f"k{number}": {"type": "integer", "minimum": -number * 77, "maximum": number**3}
                for number in range(1000)
            }
        ),
        {
            "allOf": [
                {"type": "string", "pattern": f"^.*{letter}.{{{12 - number}}}$"}
                for number, letter in enumerate("abcd")
            ]
        },
        {"prefixItems": [{"type": "integer", "maximum": n * 99_991} for n in range(2000)]},
    ),
)
def test_a_schema_that_would_take_long_is_refused_by_name(schema: dict[str, object]) -> None:
    """Large multiples, many ways to leave properties out, expensive expressions."""
    with pytest.raises(BadRequest) as caught:
        compiled(AnswerForm(JsonSchema(json.dumps(schema))))
    assert caught.value.field == "response_format"


_WORDS = [f"word{number}" for number in range(1000)]


@pytest.mark.parametrize(
    "schema",
    (
        _object(**{name: {"enum": _WORDS[at : at + 200]} for at, name in enumerate("abcde")}),
        {"enum": _WORDS},
        _object(a=_object(b=_object(c={"type": "array", "items": _object(d={"type": "string"})}))),
        _object(
            mail={"type": "string", "pattern": r"^[\w.%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"},
            phone={"type": "string", "pattern": r"^\+?[0-9 ()-]{7,20}$"},
            day={"type": "string", "format": "date-time"},
        ),
        _object(price=_multiple(0.01), size=_multiple(16), step=_multiple(5)),
        {"properties": {f"k{number}": {"type": "string"} for number in range(200)}},
        _object(**{f"k{number}": {"type": "string"} for number in range(1000)}),
    ),
)
def test_schemas_as_programs_send_them_are_within_all_bounds(schema: dict[str, object]) -> None:
    """Long enumerations, nested objects, expressions, wide tables."""
    assert compiled(AnswerForm(JsonSchema(json.dumps(schema)))).begin()


@pytest.mark.parametrize(("count", "strict"), ((64, False), (128, True)))
def test_as_many_tools_as_a_request_may_have_are_within_all_bounds(
    count: int, strict: bool
) -> None:
    parameters = _object(
        path={"type": "string"},
        mode={"enum": _WORDS[:20]},
        limit={"type": "integer", "minimum": 0, "maximum": 1000},
        options=_object(flag={"type": "boolean"}, tags={"type": "array", "items": {}}),
    )
    schema = JsonSchema(json.dumps(parameters), strict)
    tools = tuple(Tool(f"tool{number}", schema) for number in range(count))
    form = AnswerForm(tools=tools, calls="auto" if strict else "required")
    assert compiled(form).begin()
