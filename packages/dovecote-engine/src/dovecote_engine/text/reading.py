"""How the answer of one request is to be read, and what it is held to: decided at admission.

Does not know rows, the pool or the batch. Any thread.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dovecote_engine.errors import BadRequest
from dovecote_engine.sampling.constraint import Constraint, GrammarCompiler, Thinking
from dovecote_engine.sampling.grammar import answer_grammar, bound_calls, schema_grammar
from dovecote_engine.text.sections import SectionReader, Tags
from dovecote_engine.text.tool_calls import JSON_CALLS, CallFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dovecote_engine.request import AnswerForm, Request
    from dovecote_engine.served import Tokenizer
    from dovecote_engine.text.markup import Markup, ThinkTags

__all__ = ["AS_IT_COMES", "Reading", "RequestReader"]

_MOST_SECONDS = 3.0
"""Of a processor: 128 ordinary tools take half a second."""

_OPENING_TOKENS = 8
"""How far before the prompt's end its template may have opened the reasoning."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`tags` None: the text is shown as it comes. `constraint` None: it may be anything.

    `shown_ids`: special tokens whose text is needed to find the tags. `begun`: the prompt's last
    tokens, with which an answer that goes on from there has begun; empty if they cannot be told.
    """

    tags: Tags | None = None
    constraint: Constraint | None = None
    shown_ids: frozenset[int] = frozenset()
    begun: tuple[int, ...] = ()

    def begin(self) -> SectionReader | None:
        """What takes one answer apart, if anything does."""
        return None if self.tags is None else SectionReader(self.tags)


AS_IT_COMES = Reading()


class RequestReader:
    """Makes readings for the requests of one model."""

    def __init__(self, tokenizer: Tokenizer, clock: Callable[[], float] = time.thread_time) -> None:
        """`clock` gives the seconds of processor time that the calling thread has used."""
        self._clock = clock
        self._tokenizer = tokenizer
        self._markup: Markup = tokenizer.markup
        self._compiler = GrammarCompiler(tokenizer.grammar_tokenizer)

    def read(self, request: Request) -> Reading:
        """The request's reading. Takes milliseconds where a schema has to be compiled.

        Raises: BadRequest with the field at fault: the form asks for what cannot be.
        """
        form = request.form
        if not form.is_chat and form.schema is None and not form.tools:
            return AS_IT_COMES
        think = self._markup.think if form.is_chat else None
        calls = self._calls(form)
        if form.begun:
            _check_begun(form, Tags(_pair(think), calls))
        begun = self._last_tokens(request.prompt, form.begun)
        first = None if form.begun else think  # one that goes on has its reasoning behind it
        is_open = first is not None and self._opens_thinking(request.prompt, first)
        constraint = self._constraint(form, first, is_open=is_open)
        if think is None and calls is None:
            return Reading(None, constraint, begun=begun)
        tags = Tags(
            _pair(think),
            calls,
            _as_openai(form),
            is_thinking=is_open,
            takes_one_call=not form.parallel,
        )
        return Reading(tags, constraint, self._markup.shown_ids, begun)

    def _calls(self, form: AnswerForm) -> CallFormat | None:
        """The format in which its calls are read; None if there can be none."""
        if not form.tools or form.calls == "none":
            return None
        own = self._markup.calls
        return bound_calls(own) if _binds_calls(form) else own or JSON_CALLS

    def _constraint(
        self, form: AnswerForm, think: ThinkTags | None, *, is_open: bool
    ) -> Constraint | None:
        own = self._markup.calls
        calls = (own or JSON_CALLS) if form.calls == "none" else bound_calls(own)
        grammar = answer_grammar(form, calls, thinks=think is not None)
        if grammar is None:
            self._check(form)
            return None
        thinking = None if think is None else Thinking(think.start_ids, think.end_ids, is_open)
        try:
            return self._compiler.compile(grammar, _field(form), thinking)
        except BadRequest:
            self._check(form)  # which of its schemas is at fault
            raise

    def _check(self, form: AnswerForm) -> None:
        """Compiles every schema by itself, so that what is refused has a name.

        Each has bounds of its own; all of them together may take a few seconds at most.
        """
        began_s = self._clock()
        named = [
            (f"tools[{place}].function.parameters", tool.parameters)
            for place, tool in enumerate(form.tools)
        ]
        if form.schema is not None:
            named.append(("response_format", form.schema))
        for field, schema in named:
            if self._clock() - began_s > _MOST_SECONDS:
                raise BadRequest("the tools' schemas take too long to check", "tools")
            self._compiler.compile(schema_grammar(schema, field), field)

    def _opens_thinking(self, prompt: tuple[int, ...], think: ThinkTags) -> bool:
        """Whether the template has opened the reasoning: the start tag and then only space.

        No message can do so, since the assistant's header follows the last one.
        """
        tail, start = prompt[-_OPENING_TOKENS:], think.start_ids
        for at in range(len(tail) - len(start), -1, -1):
            if tail[at : at + len(start)] == start:
                return not self._tokenizer.decode(tail[at + len(start) :]).strip()
        return False

    def _last_tokens(self, prompt: tuple[int, ...], text: str) -> tuple[int, ...]:
        """Those of the prompt that are the text with which it ends; none if their bytes differ."""
        wanted = text.encode(errors="surrogatepass")
        at, found = len(prompt), 0
        while at and found < len(wanted):
            at -= 1
            found += len(self._tokenizer.token_bytes(prompt[at]))
        last = prompt[at:]
        return last if b"".join(map(self._tokenizer.token_bytes, last)) == wanted else ()


def _check_begun(form: AnswerForm, tags: Tags) -> None:
    """Raises: BadRequest unless what follows can be read, and held to the form, by itself."""
    if form.schema is not None:
        message = "an answer that continues a message cannot be held to response_format"
        raise BadRequest(message, "response_format")
    if form.calls == "required":
        message = "an answer that continues a message cannot be made to call a tool"
        raise BadRequest(message, "tool_choice")
    reader = SectionReader(tags)
    reader.push(form.begun)
    if not reader.is_plain:
        message = "the last message ends within reasoning or a tool call: it cannot be continued"
        raise BadRequest(message, "messages")


def _pair(think: ThinkTags | None) -> tuple[str, str] | None:
    return None if think is None else (think.start, think.end)


def _binds_calls(form: AnswerForm) -> bool:
    """Whether a grammar writes the calls, and so decides on their format."""
    is_strict = any(tool.parameters.is_strict for tool in form.tools)
    return form.calls == "required" or is_strict or form.schema is not None


def _field(form: AnswerForm) -> str:
    return "tools" if form.schema is None else "response_format"


def _as_openai(form: AnswerForm) -> tuple[Mapping[str, object], ...]:
    """The tools as mlx-lm's parsers want them: some read the arguments' types from it."""
    return tuple(
        {
            "type": "function",
            "function": {"name": tool.name, "parameters": json.loads(tool.parameters.text)},
        }
        for tool in form.tools
    )
