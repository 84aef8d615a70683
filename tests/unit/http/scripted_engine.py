"""An engine that says what it was told to say: the HTTP service's only stand-in.

It keeps the real engine's contract (threads, admission, the order of events) and lets a test
refuse, hold, fail and crash at a chosen place. Text is one token a character.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dovecote_engine.agents.forecast import Forecast
from dovecote_engine.errors import Draining, UnknownAgent
from dovecote_engine.request import (
    ChoiceFinished,
    Event,
    Failed,
    Finished,
    FinishReason,
    Missed,
    RankedToken,
    Request,
    Started,
    Timing,
    TokenEvent,
    TokenLogprobs,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dovecote_engine.agents.agent import AgentChanges, AgentView
    from dovecote_engine.agents.runs import Run

TIMEOUT_S = 20.0

TIMING = Timing(queue_s=0.0015, restore_s=0.02, prefill_s=0.3)


@dataclass(frozen=True, slots=True)
class Pool:
    """Pool statistics in which every number is different."""

    frames: int = 101
    leased: int = 12
    cached: int = 103
    free: int = 104
    pinned: int = 122
    promised: int = 15
    frame_bytes: int = 106
    file_bytes: int = 107
    tokens: int = 108
    matched_tokens: int = 109
    decoded_tokens: int = 110
    sealed_blocks: int = 111
    shared_blocks: int = 112
    evicted_blocks: int = 113
    superseded_blocks: int = 114
    bytes_written: int = 115
    bytes_read: int = 116
    miss_checksum: int = 117
    miss_orphan: int = 118
    miss_io: int = 119
    write_errors: int = 120
    held_bytes: int = 121


@dataclass(frozen=True, slots=True)
class Verified:
    """What a slice of a verification found."""

    checked: int
    damaged: int
    next_frame: int


@dataclass(frozen=True, slots=True)
class Counters:
    """Engine counters in which every number is different."""

    steps: int = 201
    prefilled_tokens: int = 202
    seal_errors: int = 203
    book_errors: int = 204
    slab_losses: int = 205
    expired: int = 206
    checkpoints: int = 209
    checkpoint_misses: int = 210
    decode_steps: int = 207
    decoded_rows: int = 208
    decode_seconds: float = 20.5
    seal_seconds: float = 2.5


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot of the engine."""

    running: int
    waiting: int
    draining: bool
    waiting_tokens: int = 8192
    slab_bytes: int = 4096
    counters: Counters = field(default_factory=Counters)
    pool: Pool = field(default_factory=Pool)


class Agents:
    """No agents: their service is tested over the real engine (test_agents_http.py)."""

    def list(self) -> Sequence[AgentView]:
        return ()

    def survey(self) -> tuple[Sequence[AgentView], Sequence[Run]]:
        return (), ()

    def get(self, name: str) -> AgentView:
        raise UnknownAgent(name)

    def forecast(self, name: str | None, prompt: tuple[int, ...], salt: bytes) -> Forecast:
        return Forecast(len(prompt), 0)

    def fork(self, name: str, new_name: str) -> AgentView:
        raise UnknownAgent(name)

    def change(self, name: str, changes: AgentChanges) -> AgentView:
        raise UnknownAgent(name)

    def delete(self, name: str) -> int:
        raise UnknownAgent(name)

    def export(self, name: str, path: Path, shown_name: str | None = None) -> int:
        raise UnknownAgent(name)

    def import_(
        self, path: Path, name: str | None = None, scope: str = "", salt: bytes | None = None
    ) -> AgentView:
        raise UnknownAgent(str(name))


class Tokenizer:
    """One token a character; refuses and blocks on request."""

    def __init__(self) -> None:
        self.rendered: list[list[dict[str, object]]] = []
        self.tools: list[Sequence[Mapping[str, object]] | None] = []
        self.continued: list[bool] = []
        self.threads: set[str] = set()
        self.error: Exception | None = None

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        salt: bytes = b"",
        *,
        continues: bool = False,
    ) -> tuple[int, ...]:
        """The code points of all contents."""
        self.continued.append(continues)
        self.threads.add(threading.current_thread().name)
        self.tools.append(tools)
        self.rendered.append([dict(message) for message in messages])
        if self.error is not None:
            raise self.error
        return tuple(ord(letter) for m in messages for letter in str(m["content"])) or (0,)

    def encode(self, text: str) -> tuple[int, ...]:
        """The code points of the text."""
        self.threads.add(threading.current_thread().name)
        return tuple(map(ord, text))

    def encode_inner(self, text: str) -> tuple[int, ...]:
        """As `encode`."""
        return self.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The characters of the code points, U+FFFD for ids that are none."""
        return "".join(chr(n) if n < 0xD800 else "\ufffd" for n in tokens)

    def verbatim(self, tokens: Sequence[int]) -> str:
        """As `decode`."""
        self.threads.add(threading.current_thread().name)
        return self.decode(tokens)

    def token_bytes(self, token: int) -> bytes:
        """The character, its last byte missing if it has several."""
        return chr(token).encode()[:1]


@dataclass(frozen=True, slots=True)
class Model:
    """The served model."""

    id: str = "scripted/parrot"
    created: int = 1_700_000_000
    context_tokens: int = 2048
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    uncached: str = ""


@dataclass(slots=True)
class Script:
    """What the engine does with each request. `*_after` count texts; None means never.

    An answer is its reasoning, its texts, then the fragments of its calls, one a token.
    """

    texts: tuple[str, ...] = ("Hello", " world")
    reasoning: tuple[str, ...] = ()
    calls: tuple[ToolCallDelta, ...] = ()
    tail: str = ""
    reason: FinishReason = "stop"
    stop: str | None = None
    cached_tokens: int = 0
    kept_tokens: int = 0
    own_tokens: int = 0
    missed: Missed | None = None
    timing: Timing = TIMING
    refusal: Exception | None = None
    holds_before_start: bool = False
    holds_after: int | None = None
    fails_after: int | None = None
    crashes_after: int | None = None
    sticks_after: int | None = None
    waits_too_long_s: float | None = None
    screens_out: Exception | None = None
    pool: Pool = field(default_factory=Pool)
    is_sound: bool = True

    @property
    def sayings(self) -> list[tuple[str, str, tuple[ToolCallDelta, ...]]]:
        """Text, reasoning and call fragments of each token."""
        said = [("", each, ()) for each in self.reasoning]
        told = [(each, "", ()) for each in self.texts]
        return [*said, *told, *(("", "", (each,)) for each in self.calls)]


@dataclass(slots=True)
class Row:
    """A running request and how far it is: -1 before `Started`, then texts said."""

    request: Request
    said: int = -1


class ScriptedEngine:
    """The engine's contract over a `Script`."""

    def __init__(self, script: Script | None = None, name: str = "scripted/parrot") -> None:
        self.script = script or Script()
        self.model = Model(name)
        self.agents = Agents()
        self.requests: list[Request] = []
        self.screened: list[int] = []
        self.unstick = threading.Event()
        self.refused = 0
        self.failed = 0
        self.cancelled: list[str] = []
        self.admits = threading.Event()
        self.admits.set()
        self.closed = False
        self._thread = threading.get_ident()
        self._rows: list[Row] = []
        self._draining = False
        self._woken = False
        self._changed = threading.Condition()

    # ---- for tests ----

    def release(self) -> None:
        """Lets held requests go on."""
        with self._changed:
            self.script.holds_before_start = False
            self.script.holds_after = None
            self._changed.notify_all()

    def wait_until(self, claim: Callable[[], object]) -> None:
        """Blocks until the claim holds. Raises: TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(claim, TIMEOUT_S):
                raise TimeoutError

    # ---- any thread ----

    @property
    def status(self) -> Status:
        with self._changed:
            running = sum(row.said >= 0 for row in self._rows)
            waiting = len(self._rows) - running
            return Status(running, waiting, self._draining, pool=self.script.pool)

    def submit(self, request: Request) -> None:
        assert self.admits.wait(TIMEOUT_S)
        with self._changed:
            if self._draining:
                raise Draining("The server is shutting down.", retry_after_s=2.5)
            if self.script.refusal is not None:
                self.refused += 1
                self._changed.notify_all()
                raise self.script.refusal
            self.requests.append(request)
            self._rows.append(Row(request))
            self._changed.notify_all()

    def screen(self, characters: int) -> None:
        self.screened.append(characters)
        if self.script.screens_out is not None:
            raise self.script.screens_out

    def cancel(self, request_id: str) -> str | None:
        with self._changed:
            self.cancelled.append(request_id)
            self._changed.notify_all()
            said = [row.said for row in self._rows if row.request.id == request_id]
        return ("decoding" if said[0] >= 0 else "waiting") if said else None

    def check_pool(self) -> bool:
        return self.script.is_sound

    def verify_pool(self, first_frame: int, frames: int) -> Verified:
        """Every tenth frame is damaged."""
        end = min(first_frame + frames, self.script.pool.frames)
        damaged = sum(frame % 10 == 0 for frame in range(first_frame, end))
        return Verified(end - first_frame, damaged, end)

    def drain(self) -> None:
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    # ---- engine thread ----

    def wait(self, timeout_s: float) -> bool:
        self._check_thread()
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._can_move(), timeout_s)
            self._woken = False
            return self._can_move()

    def step(self) -> list[Event]:
        self._check_thread()
        if any(row.said == self.script.sticks_after for row in self._rows):
            assert self.unstick.wait(TIMEOUT_S)
        with self._changed:
            moving = [row for row in self._rows if not self._is_held(row)]
            events = [event for row in moving for event in self._advance(row)]
            self._changed.notify_all()
            return events

    def close(self) -> None:
        self._check_thread()
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _check_thread(self) -> None:
        assert threading.get_ident() == self._thread, (
            "the engine belongs to the thread that made it"
        )

    def _can_move(self) -> bool:
        return any(not self._is_held(row) for row in self._rows)

    def _is_held(self, row: Row) -> bool:
        if row.request.id in self.cancelled:
            return False
        return (row.said < 0 and self.script.holds_before_start) or (
            row.said >= 0 and row.said == self.script.holds_after
        )

    def _advance(self, row: Row) -> list[Event]:
        request_id, script = row.request.id, self.script
        if request_id in self.cancelled:
            return self._finish(row, "cancelled")
        if script.waits_too_long_s is not None:
            self._rows.remove(row)
            return [Failed(request_id, "It waited too long.", script.waits_too_long_s)]
        row.said += 1
        if row.said == 0:
            cached, own = script.cached_tokens, script.own_tokens
            return [Started(request_id, cached, script.timing, own, script.missed)]
        if script.crashes_after == row.said - 1:
            raise ZeroDivisionError("a secret of the engine")
        if script.fails_after == row.said - 1:
            self._rows.remove(row)
            self.failed += 1
            return [Failed(request_id, "The row had to be given up.")]
        sayings = script.sayings
        limit = min(row.request.max_tokens or len(sayings), len(sayings))
        if row.said > limit:
            return self._finish(row, script.reason if limit == len(sayings) else "length")
        text, reasoning, calls = sayings[row.said - 1]
        logprobs = _logprobs(text, row.request.top_logprobs)
        return [
            TokenEvent(request_id, row.said, text, choice, logprobs, reasoning, calls)
            for choice in range(row.request.choices)
        ]

    def _finish(self, row: Row, reason: FinishReason) -> list[Event]:
        """The choices end in their order."""
        self._rows.remove(row)
        name, tail, last = row.request.id, self.script.tail, row.request.choices - 1
        said = max(0, row.said - 1) * row.request.choices
        thought = len(self.script.reasoning) * row.request.choices
        cached, kept, stop = self.script.cached_tokens, self.script.kept_tokens, self.script.stop
        usage = Usage(len(row.request.prompt), cached, said, thought, kept)
        others = [ChoiceFinished(name, each, reason, tail, stop=stop) for each in range(last)]
        return [*others, Finished(name, reason, tail, usage, last, stop=stop)]


def _logprobs(text: str, top: int | None) -> tuple[TokenLogprobs, ...]:
    """A log probability of -0.5 for the text, and of -1, -2, ... for its rivals."""
    if top is None:
        return ()
    rivals = tuple(RankedToken(n, b"\xff%d" % n, -1.0 - n) for n in range(top))
    return (TokenLogprobs(RankedToken(7, text.encode(), -0.5), rivals),)
