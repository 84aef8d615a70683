"""`dovecote chat`: a conversation with the served model, a line at a time or a single message.

Text of the model is printed as it comes, without control characters: it is no one's to command a
terminal. Facts about an answer go to standard error, so that standard output is the answer alone.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console

from dovecote.client_options import DEFAULT_URL, AsJson, Url, connected, print_json
from dovecote.server_client import ServerRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from dovecote.server_client import ServerClient

__all__ = ["chat"]

_HELP = "/fork NAME goes on as another agent, /clear begins anew, /quit or Ctrl-D ends."


@dataclass(slots=True)
class Answer:
    """What came back. `first_token_s` None: no text did."""

    text: str = ""
    finish_reason: str | None = None
    first_token_s: float | None = None
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def cached_tokens(self) -> int:
        """How much of the prompt came from the pool."""
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))

    @property
    def facts(self) -> str:
        """One line about it."""
        prompt = self.usage.get("prompt_tokens", 0)
        first = "" if self.first_token_s is None else f", first token in {self.first_token_s:.2f} s"
        return f"{self.cached_tokens:,} of {prompt:,} prompt tokens cached{first}"


@dataclass(slots=True)
class Conversation:
    """The messages so far, which the server does not keep."""

    server: ServerClient
    agent: str | None
    wishes: dict[str, object]
    messages: list[dict[str, str]]

    def say(self, text: str, show: Callable[[str], None]) -> Answer:
        """The model's answer, shown as it comes. Raises: ClientError; nothing was said then."""
        asked = [*self.messages, {"role": "user", "content": text}]
        answer = Answer()
        began_s = time.monotonic()
        try:
            for event in self.server.events("chat/completions", self._body(asked)):
                _take(event, answer, began_s, show)
        except KeyboardInterrupt:
            answer.finish_reason = "stopped"
        self.messages = [*asked, {"role": "assistant", "content": answer.text}]
        return answer

    def fork(self, name: str) -> None:
        """Goes on as a fork of the agent. Raises: ClientError."""
        if self.agent is not None:
            path = f"agents/{quote(self.agent, safe='')}/fork"
            self.server.call("POST", path, {"name": name})
        self.agent = name

    def clear(self) -> None:
        """Forgets all but the system prompt."""
        self.messages = [each for each in self.messages if each["role"] == "system"]

    def _body(self, messages: list[dict[str, str]]) -> dict[str, object]:
        streaming = {"stream": True, "stream_options": {"include_usage": True}}
        named = {} if self.agent is None else {"session_id": self.agent}
        return {"messages": messages, **streaming, **named, **self.wishes}


def chat(  # noqa: PLR0913  (one parameter an option)
    *,
    message: Annotated[
        str | None,
        typer.Option(
            "--message",
            "-m",
            show_default="a conversation",
            help="Say this, print the answer and end; `-` reads it from standard input.",
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(help="The agent to be; its cache is its own.", show_default="none"),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The system prompt.", show_default="none")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="The longest answer.", show_default="the context's end"),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is the likeliest.")] = 1.0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Talk with the served model: a conversation, or one message with -m."""
    wishes: dict[str, object] = {"temperature": temperature}
    if max_tokens is not None:
        wishes["max_completion_tokens"] = max_tokens
    opening = [] if system is None else [{"role": "system", "content": system}]
    with connected(url) as server:
        conversation = Conversation(server, agent, wishes, opening)
        if message is not None:
            _say_once(conversation, sys.stdin.read() if message == "-" else message, as_json)
        else:
            _converse(conversation, as_json)


def _say_once(conversation: Conversation, text: str, as_json: bool) -> None:  # noqa: FBT001
    answer = conversation.say(text, _nothing if as_json else _write)
    _end(conversation, answer, as_json)


def _converse(conversation: Conversation, as_json: bool) -> None:  # noqa: FBT001
    served = conversation.server.call("GET", "models")["data"][0]["id"]
    asides = Console(stderr=True, highlight=False)
    asides.print(f"{served}. {_HELP}", style="dim", markup=False)
    while True:
        try:
            line = input(f"{conversation.agent or 'you'}> ").strip()
        except (EOFError, KeyboardInterrupt):
            asides.print()
            return
        if line in ("/quit", "/exit"):
            return
        try:
            _obey(conversation, line, asides, as_json)
        except ServerRefused as error:
            asides.print(str(error), style="red", markup=False)


def _obey(
    conversation: Conversation,
    line: str,
    asides: Console,
    as_json: bool,  # noqa: FBT001
) -> None:
    command, _, rest = line.partition(" ")
    if command == "/clear":
        conversation.clear()
    elif command == "/fork" and rest.strip():
        conversation.fork(rest.strip())
    elif command.startswith("/"):
        asides.print(_HELP, style="dim", markup=False)
    elif line:
        _say_once(conversation, line, as_json)


def _end(conversation: Conversation, answer: Answer, as_json: bool) -> None:  # noqa: FBT001
    if as_json:
        print_json(
            {
                "agent": conversation.agent,
                "text": answer.text,
                "finish_reason": answer.finish_reason,
                "first_token_s": answer.first_token_s,
                "cached_tokens": answer.cached_tokens,
                "usage": answer.usage,
            }
        )
        return
    typer.echo()
    Console(stderr=True, highlight=False).print(answer.facts, style="dim", markup=False)


def _take(
    event: dict[str, Any], answer: Answer, began_s: float, show: Callable[[str], None]
) -> None:
    answer.usage = event.get("usage") or answer.usage
    for choice in event.get("choices", ()):
        text = choice["delta"].get("content") or ""
        if text:
            if answer.first_token_s is None:
                answer.first_token_s = round(time.monotonic() - began_s, 3)
            answer.text += text
            show(text)
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason


def _write(text: str) -> None:
    sys.stdout.write("".join(c for c in text if c.isprintable() or c in "\n\t"))
    sys.stdout.flush()


def _nothing(_: str) -> None:
    """Where an answer is wanted in one piece."""
