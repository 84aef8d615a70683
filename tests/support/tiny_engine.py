"""An engine over a model small enough for unit tests: two layers, a hundred tokens, real parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models import llama
from mlx_lm.models.cache import make_prompt_cache

from dovecote_cache import Geometry, LayerShape, Pool
from dovecote_engine.engine import Engine
from dovecote_engine.options import EngineOptions
from dovecote_engine.request import (
    ChoiceFinished,
    Event,
    Failed,
    Finished,
    Priority,
    Request,
    Sampling,
    Started,
    TokenEvent,
    TokenLogprobs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mlx import nn

    from dovecote_cache import AgentBook

VOCABULARY = 100
BLOCK = 8
CONTEXT = 512
GEOMETRY = Geometry((LayerShape(2, 32, 32), LayerShape(2, 32, 32)), "float32", BLOCK)
FINGERPRINT = bytes(range(32))
GREEDY = Sampling(temperature=0.0)


def random_model(seed: int = 3) -> llama.Model:
    """A random llama whose answers vary: weights four times the usual, an untied head."""
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        tie_word_embeddings=False,
    )
    mx.random.seed(seed)
    model = llama.Model(args)
    model.update(tree_map(lambda each: each * 4 if each.ndim == 2 else each, model.parameters()))
    mx.eval(model.parameters())
    return model


@cache
def tiny_model() -> llama.Model:
    """The model of most tests, made once."""
    return random_model()


def _integer(array: mx.array) -> int:
    number: Any = array.item()
    return int(number)


@cache
def reference(prompt: tuple[int, ...], count: int) -> list[int]:
    """The greedy answer of the tiny model with mlx-lm's own cache."""
    model, answer = tiny_model(), []
    caches = make_prompt_cache(model)
    tokens = mx.array([prompt])
    for _ in range(count):
        logits = model(tokens, cache=caches)[0, -1]
        answer.append(_integer(mx.argmax(logits)))
        tokens = mx.array([answer[-1:]])
    return answer


class TinyStream:
    """Text is the ids in angle brackets; the last one is held back."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, token: int) -> str:
        text, self._held = self._held, f"<{token}>"
        return text

    def finish(self) -> str:
        text, self._held = self._held, ""
        return text


class TinyTokenizer:
    """Token ids to text, as little of it as the engine needs."""

    eos_ids: frozenset[int] = frozenset()
    token_characters = 3

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> tuple[int, ...]:
        return self.encode(" ".join(str(message["content"]) for message in messages))

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in text.split())

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(f"<{token}>" for token in tokens)

    def text_stream(self) -> TinyStream:
        return TinyStream()

    def token_bytes(self, token: int) -> bytes:
        return f"<{token}>".encode()


@dataclass(frozen=True)
class TinyLoaded:
    """What `load_model` would give."""

    model: nn.Module = field(default_factory=tiny_model)
    tokenizer: TinyTokenizer = field(default_factory=TinyTokenizer)
    id: str = "tiny"
    context_tokens: int = CONTEXT
    eos_ids: frozenset[int] = frozenset()
    geometry: Geometry = GEOMETRY
    created: int = 1


def open_pool(path: Path | None = None, size_bytes: int = 8 << 20) -> Pool:
    """A pool for the tiny model, in memory without a path."""
    return Pool.open(
        path, geometry=GEOMETRY, codec="exact", fingerprint=FINGERPRINT, size_bytes=size_bytes
    )


def build(
    loaded: TinyLoaded | None = None,
    pool: Pool | None = None,
    book: AgentBook | None = None,
    **options: float,
) -> Engine:
    """An engine; whatever is not given is tiny."""
    chosen = EngineOptions(**options)  # type: ignore[arg-type]
    return Engine(loaded or TinyLoaded(), pool or open_pool(), book, chosen)


def greedy(
    name: str,
    prompt: Iterable[int],
    max_tokens: int,
    agent: str | None = None,
    priority: Priority = "interactive",
) -> Request:
    """A request whose answer `reference` knows."""
    return Request(name, tuple(prompt), max_tokens, GREEDY, agent, priority=priority)


@dataclass
class Answer:
    """What the events of one request came to."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    started: Started | None = None
    finished: Finished | None = None
    choice_finished: ChoiceFinished | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    failed: Failed | None = None

    @property
    def is_over(self) -> bool:
        return any((self.finished, self.choice_finished, self.failed))

    @property
    def reason(self) -> str:
        """Why it ended."""
        ending = self.finished or self.choice_finished
        assert ending is not None
        return ending.reason


class Answers(dict[str, Answer]):
    """The answers by request id, those of further choices by `id/choice`; filled from steps."""

    def __missing__(self, key: str) -> Answer:
        self[key] = Answer()
        return self[key]

    def step(self, engine: Engine) -> None:
        """One step of the engine; every event belongs to a request that goes on."""
        for event in engine.step():
            answer = self[_answer_name(event)]
            assert not answer.is_over
            match event:
                case Started():
                    answer.started = event
                case TokenEvent():
                    answer.tokens.append(event.token)
                    answer.text += event.text
                    answer.logprobs += event.logprobs
                case ChoiceFinished() | Finished():
                    if isinstance(event, Finished):
                        answer.finished = event
                    else:
                        answer.choice_finished = event
                    answer.text += event.text
                    answer.logprobs += event.logprobs
                case Failed():
                    answer.failed = event


def _answer_name(event: Event) -> str:
    choice = getattr(event, "choice", 0)
    return f"{event.request_id}/{choice}" if choice else event.request_id


def drive(engine: Engine, *requests: Request) -> Answers:
    """Submits the requests and steps until the engine has nothing to do."""
    answers = Answers()
    for request in requests:
        engine.submit(request)
    while engine.wait(0):
        answers.step(engine)
    assert_idle(engine)
    return answers


def cached_tokens(answer: Answer) -> int:
    """How much of the prompt came from the pool."""
    assert answer.finished is not None
    return answer.finished.usage.cached_tokens


def assert_idle(engine: Engine) -> None:
    """No row, lease or promise is left, and the pool is sound."""
    status = engine.status
    assert (status.running, status.waiting) == (0, 0)
    assert (status.pool.leases, status.pool.leased, status.pool.promised) == (0, 0, 0)
    engine._pool.check()
