"""How requests' answers are read, over the tiny model's tokenizer with tags of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from llguidance import LLTokenizer
from llguidance._tokenizer import TokenizerWrapper
from tiny_engine import Answers, TinyLoaded, TinyStream, TinyTokenizer, build

from dovecote_engine.errors import BadRequest
from dovecote_engine.request import (
    AnswerForm,
    ChoiceFinished,
    Finished,
    JsonSchema,
    Request,
    Sampling,
    TokenEvent,
    Tool,
    ToolCallDelta,
)
from dovecote_engine.text.markup import Markup, ThinkTags
from dovecote_engine.text.reading import AS_IT_COMES, RequestReader
from dovecote_engine.text.text_stream import BytesTextStream, TextStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote_engine.engine import Engine
    from dovecote_engine.text.sampled_turns import SampledTurn

OBJECT = JsonSchema('{"type": "object", "additionalProperties": false}')
EOS = 99
_LETTERS = '\n "{}:,<>/_abcdefghijklmnopqrstuvwxyz0123456789'
THINK, THOUGHT = 90, 91


class Letters:
    """A token for each character of `_LETTERS`, two for the tags of reasoning, and an end."""

    eos_token_id = EOS
    bos_token_id = None
    special_token_ids: ClassVar = [EOS]
    tokens: ClassVar = [
        _LETTERS[token : token + 1].encode() or b"<%d>" % token for token in range(100)
    ]

    def __call__(self, text: bytes) -> list[int]:
        return [_LETTERS.index(letter) for letter in text.decode()]


class LetterTokenizer(TinyTokenizer):
    """Tokens of letters, and what it was told to remember."""

    eos_ids = frozenset((EOS,))
    markup = Markup(ThinkTags("<90>", "<91>", (THINK,), (THOUGHT,)))

    def __init__(self) -> None:
        self.remembered: list[tuple[SampledTurn, bytes]] = []

    def text_stream(  # type: ignore[override]
        self, shown_ids: frozenset[int] = frozenset(), lead: Sequence[int] = ()
    ) -> TextStream:
        return BytesTextStream(lambda token: b"" if token == EOS else Letters.tokens[token])

    def decode(self, tokens: object) -> str:
        return "".join(Letters.tokens[token].decode() for token in tokens)  # type: ignore[attr-defined]

    def grammar_tokenizer(self) -> LLTokenizer:
        return LLTokenizer(TokenizerWrapper(Letters()))

    def remember(self, turn: SampledTurn, salt: bytes) -> None:
        self.remembered.append((turn, salt))


@dataclass(frozen=True)
class LetterLoaded(TinyLoaded):
    """The tiny model with letters for tokens."""

    tokenizer: LetterTokenizer = field(default_factory=LetterTokenizer)
    eos_ids: frozenset[int] = frozenset((EOS,))


@dataclass
class Told:
    """What the events of a choice said."""

    text: str = ""
    reasoning: str = ""
    calls: list[ToolCallDelta] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    reason: str = ""


def told(engine: Engine, request: Request) -> tuple[list[Told], Finished]:
    choices = [Told() for _ in range(request.choices)]
    engine.submit(request)
    last: Finished | None = None
    while engine.wait(0):
        for event in engine.step():
            if isinstance(event, TokenEvent | ChoiceFinished | Finished):
                choice = choices[event.choice]
                choice.text += event.text
                choice.reasoning += event.reasoning
                choice.calls += event.tool_calls
                if isinstance(event, TokenEvent):
                    choice.tokens.append(event.token)
                else:
                    choice.reason = event.reason
                if isinstance(event, Finished):
                    last = event
    assert last is not None
    return choices, last


def request(form: AnswerForm, name: str = "r", **fields: Any) -> Request:
    wishes: dict[str, Any] = {"max_tokens": 300, "sampling": Sampling(1.0, seed=4)}
    return Request(name, (1, 2, 3), form=form, **{**wishes, **fields})


UNTHINKING = Sampling(1.0, seed=4, logit_bias=((THINK, -100.0),))
"""A random model would otherwise begin to reason, and never end."""

CALLING = AnswerForm(
    tools=(Tool("f", OBJECT), Tool("g", OBJECT)), calls="required", parallel=False, is_chat=True
)


def test_a_required_call_is_told_piece_by_piece() -> None:
    """A random model calls one of the tools, since it can do nothing else."""
    engine = build(LetterLoaded())
    ((choice,), finished) = told(engine, request(CALLING, sampling=UNTHINKING))
    assert (choice.text.strip(), choice.reason) == ("", "tool_calls")
    first, *others = choice.calls
    assert first.id is not None
    assert first.name in ("f", "g")
    assert {each.id for each in others} <= {None}
    assert json.loads("".join(each.arguments for each in choice.calls)) == {}
    assert finished.usage.reasoning_tokens == 0
    engine.close()


def test_each_choice_has_a_state_of_its_own() -> None:
    """Several constrained rows of one request end validly, and with ids of their own."""
    engine = build(LetterLoaded())
    choices, _ = told(engine, request(CALLING, choices=3, sampling=UNTHINKING))
    assert [choice.reason for choice in choices] == ["tool_calls"] * 3
    assert len({choice.calls[0].id for choice in choices}) == 3
    engine.close()


def test_an_answer_that_is_cut_off_ends_by_length() -> None:
    """A call that is not complete is none that a client should make."""
    engine = build(LetterLoaded())
    ((choice,), _) = told(engine, request(CALLING, max_tokens=8, sampling=UNTHINKING))
    assert (choice.reason, len(choice.tokens)) == ("length", 8)
    engine.close()


def test_an_unconstrained_neighbour_answers_as_alone() -> None:
    """A constraint touches its own row's logits only."""
    alone = Answers()
    for engine_requests in (("free",), ("free", "bound")):
        engine = build(LetterLoaded())
        free = Request("free", (5, 6, 7), 24, Sampling(0.0))
        requests = {"free": free, "bound": request(CALLING, "bound", sampling=UNTHINKING)}
        answers = Answers()
        for name in engine_requests:
            engine.submit(requests[name])
        while engine.wait(0):
            answers.step(engine)
        if alone:
            assert answers["free"].tokens == alone["free"].tokens
        alone = answers
        engine.close()


def test_reasoning_is_told_apart_and_counted() -> None:
    """What the prompt opened is reasoning until its end tag; raw completions have no sections."""
    ends = Sampling(0.0, logit_bias=((THOUGHT, 100.0),))
    engine = build(LetterLoaded())
    chat = AnswerForm(is_chat=True)
    opened = Request("r", (1, 2, THINK), 5, ends, form=chat)
    ((choice,), finished) = told(engine, opened)
    assert finished.usage.reasoning_tokens == 1
    assert choice.reasoning == ""
    ((raw,), finished) = told(engine, Request("raw", (1, 2, THINK), 5, ends))
    assert (raw.text, finished.usage.reasoning_tokens) == ("<91>" * 5, 0)
    engine.close()


def test_reasoning_never_ends_by_itself() -> None:
    thinks = Sampling(0.0, logit_bias=((THOUGHT, -100.0), (EOS, -100.0)))
    engine = build(LetterLoaded())
    form = AnswerForm(schema=OBJECT, is_chat=True)
    ((choice,), finished) = told(engine, Request("r", (1, THINK), 20, thinks, form=form))
    assert (choice.text, choice.reason) == ("", "length")
    assert finished.usage.reasoning_tokens == 20
    engine.close()


def test_chats_are_remembered_without_the_token_that_ended_them() -> None:
    loaded = LetterLoaded()
    engine = build(loaded)
    ends = Sampling(0.0, logit_bias=((EOS, 100.0),))
    told(engine, Request("raw", (1, 2), 5))
    told(engine, Request("chat", (1, 2), 5, ends, form=AnswerForm(is_chat=True), salt=b"s"))
    ((turn, salt),) = loaded.tokenizer.remembered
    assert (turn.tokens, turn.content, salt) == ([], "", b"s")
    engine.close()


@pytest.mark.parametrize(
    ("form", "field"),
    (
        (AnswerForm(schema=JsonSchema('{"type": "x"}')), "response_format"),
        (
            AnswerForm(
                tools=(Tool("f", OBJECT), Tool("g", JsonSchema('{"type": 5}'))), calls="auto"
            ),
            "tools[1].function.parameters",
        ),
        (
            AnswerForm(tools=(Tool("f", JsonSchema("[]")),), calls="required"),
            "tools[0].function.parameters",
        ),
    ),
)
def test_a_form_that_cannot_be_met_is_refused_at_admission(form: AnswerForm, field: str) -> None:
    """By the name of the schema at fault, and nothing is reserved."""
    engine = build(LetterLoaded())
    with pytest.raises(BadRequest) as caught:
        engine.submit(request(form))
    assert caught.value.field == field
    assert engine.status.waiting == 0
    engine.close()


def test_a_request_without_wishes_is_read_as_it_comes() -> None:
    reader = RequestReader(TinyTokenizer())
    assert reader.read(Request("r", (1,))) is AS_IT_COMES
    assert reader.read(Request("r", (1,), form=AnswerForm(is_chat=True))).begin() is None


def test_a_users_tag_opens_nothing() -> None:
    """Only a start tag at the very end of the prompt, where no message can reach, counts."""
    reader = RequestReader(LetterTokenizer())
    form = AnswerForm(is_chat=True)
    for prompt, thinks in (((1, THINK, 5), False), ((1, THINK, 0), True), ((THINK,), True)):
        reading = reader.read(Request("r", prompt, form=form))
        assert reading.tags is not None
        assert reading.tags.is_thinking is thinks
    assert isinstance(TinyTokenizer().text_stream(), TinyStream)


SPACE = 1


class SpaceTokenizer(LetterTokenizer):
    """As SentencePiece: a space at the very beginning of a text is left out."""

    def text_stream(  # type: ignore[override]
        self, shown_ids: frozenset[int] = frozenset(), lead: Sequence[int] = ()
    ) -> TextStream:
        stream = BytesTextStream(lambda token: Letters.tokens[token], drop_space=True)
        for token in lead:
            stream.push(token)
        return stream

    def token_bytes(self, token: int) -> bytes:
        return Letters.tokens[token]


SPACES = Sampling(0.0, logit_bias=((SPACE, 100.0),))
HI = (_LETTERS.index("h"), _LETTERS.index("i"))


@pytest.mark.parametrize(
    ("form", "text"),
    (
        (AnswerForm(is_chat=True), "  "),
        (AnswerForm(is_chat=True, begun="hi"), "   "),
        (AnswerForm(), "   "),
    ),
)
def test_an_answer_that_goes_on_keeps_the_space_it_goes_on_with(
    form: AnswerForm, text: str
) -> None:
    """A turn that has begun, and a raw prompt: it begins amid a text, not a text."""
    engine = build(LetterLoaded(tokenizer=SpaceTokenizer()))
    ((choice,), _) = told(engine, Request("r", (5, *HI), 3, SPACES, form=form))
    assert choice.text == text
    engine.close()


@pytest.mark.parametrize(
    ("begun", "tokens", "content"), (("hi", [*HI, 1, 1], "hi  "), ("his", None, None))
)
def test_a_turn_that_was_continued_is_remembered_whole(
    begun: str, tokens: list[int] | None, content: str | None
) -> None:
    """With the tokens of its beginning, as they stand at the prompt's end; not if they do not."""
    loaded = LetterLoaded(tokenizer=SpaceTokenizer())
    engine = build(loaded)
    form = AnswerForm(is_chat=True, begun=begun)
    told(engine, Request("r", (5, *HI), 2, SPACES, form=form))
    found = [(turn.tokens, turn.content) for turn, _ in loaded.tokenizer.remembered]
    assert found == ([] if tokens is None else [(tokens, content)])
    engine.close()


@pytest.mark.parametrize(
    ("form", "field"),
    (
        (AnswerForm(OBJECT, is_chat=True, begun="{"), "response_format"),
        (
            AnswerForm(tools=(Tool("f", OBJECT),), calls="required", is_chat=True, begun="I"),
            "tool_choice",
        ),
        (AnswerForm(is_chat=True, begun="<90>hm"), "messages"),
        (AnswerForm(is_chat=True, begun="hm <9"), "messages"),
        (
            AnswerForm(
                tools=(Tool("f", OBJECT),), calls="auto", is_chat=True, begun='<tool_call>{"name'
            ),
            "messages",
        ),
    ),
)
def test_what_cannot_be_read_from_its_middle_cannot_be_continued(
    form: AnswerForm, field: str
) -> None:
    """What was asked of the whole answer, open reasoning, an open call, or a tag's beginning."""
    with pytest.raises(BadRequest) as caught:
        RequestReader(LetterTokenizer()).read(Request("r", (1,), form=form))
    assert caught.value.field == field


def test_an_answer_that_goes_on_has_its_reasoning_behind_it() -> None:
    """Wherever it is: the answer begins as text, and may not open reasoning against a grammar."""
    reader = RequestReader(LetterTokenizer())
    strict = Tool("f", JsonSchema(OBJECT.text, is_strict=True))
    form = AnswerForm(tools=(strict,), calls="auto", is_chat=True, begun="<90>hm<91>so")
    reading = reader.read(Request("r", (1, THINK), form=form))
    assert reading.tags is not None
    assert not reading.tags.is_thinking
    assert reading.constraint is not None
    assert reading.constraint.thinking is None


def test_the_schemas_of_many_tools_may_take_a_few_seconds_together() -> None:
    """Those that are left then are not looked at, and the request is refused."""
    seconds = iter(range(100))
    reader = RequestReader(LetterTokenizer(), lambda: next(seconds))
    few, many = (tuple(Tool(f"f{n}", OBJECT) for n in range(count)) for count in (3, 4))
    assert reader.read(request(AnswerForm(tools=few, calls="auto"))).constraint is None
    with pytest.raises(BadRequest, match="too long") as caught:
        reader.read(request(AnswerForm(tools=many, calls="auto")))
    assert caught.value.field == "tools"
