"""docs/api.md has every field that the server reads and writes, and no other.

    | field of ...      | meaning |    a body, or an answer: `name`, `outer.inner`, `list[].inner`
    | `type` of a block | fields  |    the structs of a union, a line each
    {"object": ...}                    an example of an answer, whole

What a row says of required fields, defaults ("default `x`"), bounds and words to choose from is
true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import Struct, inspect
from tiny_engine import build

from dovecote_engine.request import Sampling
from dovecote_http import openapi
from dovecote_http.agents.agents import AgentBody, AgentList, Changes, Deletion, Fork
from dovecote_http.agents.cache_probe import ProbeBody
from dovecote_http.answers import replies
from dovecote_http.answers.bodies import ChatBody, GenerationBody, Message
from dovecote_http.answers.cancellation import Cancellation
from dovecote_http.answers.forms import ToolSpec
from dovecote_http.anthropic import body as anthropic
from dovecote_http.anthropic import messages as counts
from dovecote_http.anthropic import replies as anthropic_replies
from dovecote_http.openai import listing, tokenization
from dovecote_http.openai.completion_body import CompletionBody
from dovecote_http.openai.completion_replies import TextCompletion
from dovecote_http.operators.admin import (
    DrainBody,
    SwapStatus,
    SwapWish,
    Verification,
    VerificationWish,
    Verifying,
)
from dovecote_http.operators.metrics import pool_numbers
from dovecote_http.operators.overview import OverviewBody
from dovecote_http.responses import answering
from dovecote_http.responses.bodies import Response
from dovecote_http.responses.body import Item, ResponseBody

API = (Path(__file__).resolve().parents[2] / "docs/api.md").read_text(encoding="utf-8")

BODIES: dict[str, type[Struct]] = {
    "field of a chat completion": ChatBody,
    "field of a chat message": Message,
    "field of a tool": ToolSpec,
    "field of a text completion": CompletionBody,
    "field of a message": anthropic.MessageBody,
    "field of a token count": anthropic.CountBody,
    "field of a response": ResponseBody,
    "field of an item": Item,
    "field to tokenize": tokenization.TokenizeBody,
    "field to detokenize": tokenization.DetokenizeBody,
    "field to change": Changes,
    "field of a fork": Fork,
    "field of a swap": SwapWish,
    "field of a verification": VerificationWish,
}
ANSWERS: dict[str, type[Struct]] = {
    "field of an agent": AgentBody,
    "field of the overview": OverviewBody,
}
EXAMPLES: dict[str, type[Struct]] = {
    "cache.probe": ProbeBody,
    "agent.deleted": Deletion,
    "request.cancellation": Cancellation,
    "model.swaps": SwapStatus,
    "drain": DrainBody,
    "pool.verification": Verification,
    "pool.verifying": Verifying,
}
IN_WORDS = (
    *(AgentList, listing.Listing, listing.ModelBody),
    *(tokenization.Tokens, tokenization.Content, tokenization.Prompt),
)
"""Answers so small that a sentence has them."""

OTHERS_OWN = (
    *(replies.Completion, TextCompletion, Response, answering.Deletion, counts.TokenCount),
    anthropic_replies.Message,
)
"""Answers that are another API's, whose documentation has them."""

SAMPLING = "sampling field"


@dataclass(frozen=True, slots=True)
class Row:
    """The names in a row's first cell, and the other cells."""

    names: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def words(self) -> str:
        return self.cells[-1]


def rows_of(title: str) -> list[Row]:
    """The rows of the only table that begins with that title."""
    head = rf"^\| {re.escape(title)} \|.*\n\|[-|]+\|\n"
    tables = re.findall(rf"{head}((?:\|.*\n)+)", API, re.MULTILINE)
    assert len(tables) == 1, title
    found = []
    for line in tables[0].splitlines():
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(Row(tuple(re.findall(r"`([^`]+)`", first)), tuple(rest)))
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """A struct that a field holds, and what its fields' names begin with there."""

    prefix: str
    kind: inspect.StructType

    @property
    def names(self) -> set[str]:
        own = {field.encode_name for field in self.kind.fields}
        tag = {self.kind.tag_field} if self.kind.tag_field and self.prefix else set()
        return {self.prefix + name for name in own | tag}


def places(kind: inspect.StructType, prefix: str = "") -> Iterator[Place]:
    """The struct itself, and all that are in it."""
    yield Place(prefix, kind)
    for field in kind.fields:
        yield from _inner(field.type, prefix + field.encode_name)


def _inner(kind: inspect.Type, name: str) -> Iterator[Place]:
    match kind:
        case inspect.UnionType(types):
            for each in types:
                yield from _inner(each, name)
        case inspect.ListType(item_type):
            yield from _inner(item_type, f"{name}[]")
        case inspect.StructType():
            yield from places(kind, f"{name}.")


BLOCK_ROWS = rows_of("`type` of a block")


def struct(kind: type[Struct]) -> inspect.StructType:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return found


def named(rows: list[Row]) -> set[str]:
    """What the rows name. `outer.inner` names `outer`, too."""
    names = [name.split(".") for row in rows for name in row.names]
    return {".".join(name[:end]) for name in names for end in range(1, len(name) + 1)}


def leaf(kind: inspect.StructType, name: str) -> inspect.Field | None:
    """The field of that name, `outer.inner` included; None for a union's tag."""
    outer, _, last = name.rpartition(".")
    for place in places(kind):
        if place.prefix == (f"{outer}." if outer else ""):
            for field in place.kind.fields:
                if field.encode_name == last:
                    return field
    return None


def bare(names: set[str]) -> set[str]:
    return {name.removesuffix("[]") for name in names}


def alone(title: str) -> Iterator[tuple[str, str, inspect.Field]]:
    """The rows that name a single field: its name, the row's words, the field."""
    for row in rows_of(title):
        if len(row.names) == 1 and (field := leaf(struct(BODIES[title]), row.names[0])):
            yield row.names[0], row.words, field


@pytest.mark.parametrize(("title", "kind"), (BODIES | ANSWERS).items())
def test_a_table_names_every_field_and_no_other(title: str, kind: type[Struct]) -> None:
    """Of a struct within, it names all fields or none."""
    documented = bare(named(rows_of(title)))
    known = set[str]()
    for place in places(struct(kind)):
        known |= place.names
        if not place.prefix or documented & place.names:
            assert place.names <= documented
    assert documented <= known


def test_the_blocks_of_a_message_have_their_fields() -> None:
    """Every type of block, with all that is read of it."""
    kinds = [struct(kind) for kind in get_args(anthropic.Block)]
    documented = {row.names[0]: set(re.findall(r"`(\w+)`", row.cells[0])) for row in BLOCK_ROWS}
    assert documented == {kind.tag: {field.name for field in kind.fields} for kind in kinds}


def test_every_struct_is_told_somewhere() -> None:
    """Those within others by a table of their own, or in their outer one's."""
    told: set[type] = {*BODIES.values(), *get_args(anthropic.Block)}
    met = set[type]()
    for title, kind in (BODIES | ANSWERS).items():
        documented = bare(named(rows_of(title)))
        for place in places(struct(kind)):
            met.add(place.kind.cls)
            if place.names and place.names <= documented:
                told.add(place.kind.cls)
    assert met <= told


def test_every_body_is_in_a_table_and_every_answer_in_one_or_an_example() -> None:
    """Of all that the OpenAPI document has, but for answers that are other APIs' own."""
    bodies = {each.body for each in openapi.BODIES.values()} - {None}
    answers = {each.answer for each in openapi.BODIES.values()} - {None}
    assert bodies <= set(BODIES.values())
    examples = {place.kind.cls for kind in EXAMPLES.values() for place in places(struct(kind))}
    assert answers <= {*ANSWERS.values(), *examples, *IN_WORDS, *OTHERS_OWN}


@pytest.mark.parametrize("title", BODIES)
def test_required_is_what_has_no_default(title: str) -> None:
    """Of the fields of the body itself."""
    for row in rows_of(title):
        for name in row.names:
            field = leaf(struct(BODIES[title]), name)
            if "." not in name and field is not None:
                assert row.words.startswith("required") == field.required, name


@pytest.mark.parametrize("title", BODIES)
def test_a_default_is_told_where_there_is_one(title: str) -> None:
    """As JSON; a field that is null without one has none."""
    for row in rows_of(title):
        told = re.search(r"default `([^`]+)`", row.words)
        for name in row.names:
            field = leaf(struct(BODIES[title]), name)
            default = None if field is None else field.default
            if default in (None, msgspec.NODEFAULT, msgspec.UNSET):
                assert told is None, name
            else:
                assert told is not None, name
                assert told[1].strip('"') == json.dumps(default).strip('"'), name


@pytest.mark.parametrize("title", BODIES)
def test_bounds_and_words_to_choose_from_are_told(title: str) -> None:
    """Where a row is about one field alone."""
    for name, words, field in alone(title):
        for kind in flat(field.type):
            for claim in claims(kind):
                assert claim in words, name


def test_sampling_is_told_with_its_bounds_and_defaults() -> None:
    """In a table of its own, since all bodies have it."""
    fields = {field.encode_name: field for field in struct(GenerationBody).fields}
    defaults = {name: json.dumps(value) for name, value in asdict(Sampling()).items()}
    defaults = {name: text.removesuffix(".0") for name, text in defaults.items()}
    defaults |= {"seed": "random", "logit_bias": "none", "top_k": "0: all"}
    rows = {row.names[0]: row.cells for row in rows_of(SAMPLING) if len(row.names) == 1}
    assert rows.keys() == defaults.keys()
    for name, (bounds, default, _) in rows.items():
        assert default == defaults[name]
        for kind in flat(fields[name].type):
            for claim in claims(kind):
                assert claim in bounds, name


def test_examples_are_what_the_server_writes() -> None:
    """Whole: with every field of the struct, and none beside."""
    found = []
    for block in re.findall(r"(?:^    .*\n)+", API, re.MULTILINE):
        if '"object"' not in block:
            continue
        for example in decoded(block):
            kind = EXAMPLES[example["object"]]
            assert msgspec.to_builtins(msgspec.convert(example, kind)) == example
            found.append(example["object"])
    assert sorted(found) == sorted(EXAMPLES)


def test_the_pool_is_told_in_the_words_of_the_metrics() -> None:
    """Without `dovecote_pool_` and `_total`; misses by reason."""
    engine = build()
    told = pool_numbers(engine.status.pool).keys()
    engine.close()
    metrics = re.findall(r"^\| `dovecote_pool_(\w+?)(?:_total)?` \|", API, re.MULTILINE)
    misses = set(re.findall(r"`(miss_\w+)`", API))
    assert told == {*metrics, *misses} - {"misses"}


def flat(kind: inspect.Type) -> Iterator[inspect.Type]:
    """The types of a value, those in a dict included."""
    match kind:
        case inspect.UnionType(types):
            for each in types:
                yield from flat(each)
        case inspect.DictType(value_type=value_type):
            yield from flat(value_type)
        case _:
            yield kind


def claims(kind: inspect.Type) -> Iterator[str]:
    """What the documentation has to say of that type's values."""
    match kind:
        case inspect.LiteralType(values):
            yield from (f"`{value}`" for value in values)
        case inspect.IntType() | inspect.FloatType() if kind.ge == -1:
            yield "-1"  # as good as 0
        case inspect.IntType() if kind.ge == -(2**63):
            yield "64 bits"
        case inspect.IntType() | inspect.FloatType() if kind.ge is not None:
            yield f"at least {kind.ge}" if kind.le is None else f"{kind.ge} to {kind.le}"
        case inspect.IntType() | inspect.FloatType() if kind.gt is not None:
            yield f"above {kind.gt}, at most {kind.le}"
        case inspect.ListType(min_length=1):
            yield "at least one"
        case inspect.ListType(max_length=int(most)) if most < tokenization.MAX_TOKENS:
            yield f"up to {most}"
        case inspect.StrType(min_length=least, max_length=int(most)):
            yield f"{least} to {most} characters" if least else f"at most {most} characters"


def decoded(block: str) -> Iterator[dict[str, Any]]:
    """The JSON values of a block, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    text = block.strip()
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        yield value
        at = end + len(text[end:]) - len(text[end:].lstrip())
