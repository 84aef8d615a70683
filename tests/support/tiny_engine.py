"""An engine over a model small enough for unit tests: two layers, a hundred tokens, real parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models import falcon_h1, gemma3_text, lfm2, llama, mamba2
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
from dovecote_engine.text.markup import PLAIN, Markup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from llguidance import LLTokenizer
    from mlx import nn

    from dovecote_cache import AgentBook, CodecName
    from dovecote_engine.text.sampled_turns import SampledTurn

VOCABULARY = 100
BLOCK = 8
CONTEXT = 512
WINDOW = 16
GEOMETRY = Geometry((LayerShape(2, 32, 32), LayerShape(2, 32, 32)), "float32", BLOCK)
WINDOWED_GEOMETRY = Geometry(
    (LayerShape(2, 32, 32, WINDOW), LayerShape(2, 32, 32), LayerShape(2, 32, 32, WINDOW)),
    "float32",
    BLOCK,
)
HYBRID_GEOMETRY = Geometry((LayerShape(2, 16, 16), LayerShape(2, 16, 16)), "float32", BLOCK)
NOTHING = Geometry((LayerShape(1, 1, 1),), "float32", BLOCK)
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
    _magnify(model, 4)
    return model


def _magnify(model: nn.Module, factor: int) -> None:
    """Larger matrices: so that logits of random weights lie apart."""
    model.update(
        tree_map(lambda each: each * factor if each.ndim == 2 else each, model.parameters())
    )
    mx.eval(model.parameters())


@cache
def tiny_model() -> llama.Model:
    """The model of most tests, made once."""
    return random_model()


@cache
def windowed_model() -> gemma3_text.Model:
    """A random Gemma 3: its layers see a window, everything, a window."""
    args = gemma3_text.ModelArgs(
        model_type="gemma3_text",
        hidden_size=64,
        num_hidden_layers=3,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        vocab_size=VOCABULARY,
        sliding_window=WINDOW,
        sliding_window_pattern=2,
    )
    mx.random.seed(7)
    model = gemma3_text.Model(args)
    _magnify(model, 4)
    return model


@cache
def recurrent_model() -> mamba2.Model:
    """A random Mamba 2: a state that every token overwrites."""
    args = mamba2.ModelArgs(
        model_type="mamba2",
        num_heads=4,
        head_dim=16,
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        state_size=8,
        num_hidden_layers=2,
        layer_norm_epsilon=1e-5,
        conv_kernel=4,
        n_groups=1,
        use_bias=False,
        use_conv_bias=True,
        tie_word_embeddings=False,
        time_step_limit=(0.001, 100.0),
        time_step_rank="auto",
    )
    mx.random.seed(5)
    model = mamba2.Model(args)
    _magnify(model, 2)
    return model


@cache
def hybrid_model() -> lfm2.Model:
    """A random LFM2: convolutions, which keep a state, around two layers of attention."""
    args = lfm2.ModelArgs.from_dict(
        {
            "model_type": "lfm2",
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT,
            "norm_eps": 1e-5,
            "conv_bias": False,
            "conv_L_cache": 3,
            "block_dim": 64,
            "block_ff_dim": 128,
            "block_multiple_of": 8,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": False,
            "full_attn_idxs": [1, 3],
            "layer_types": ["conv", "full_attention", "conv", "full_attention", "conv"],
        }
    )
    mx.random.seed(11)
    model = lfm2.Model(args)
    _magnify(model, 2)
    return model


@cache
def parallel_model() -> falcon_h1.Model:
    """A random Falcon-H1: each layer has attention and a Mamba 2 side by side."""
    args = falcon_h1.ModelArgs(
        model_type="falcon_h1",
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        mamba_d_ssm=64,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=8,
        mamba_n_groups=1,
        mamba_d_conv=4,
    )
    mx.random.seed(13)
    model = falcon_h1.Model(args)
    _magnify(model, 2)
    return model


Kind = Literal["plain", "windowed", "recurrent", "hybrid", "parallel"]
MODELS: dict[Kind, Any] = {
    "plain": tiny_model,
    "windowed": windowed_model,
    "recurrent": recurrent_model,
    "hybrid": hybrid_model,
    "parallel": parallel_model,
}


def _integer(array: mx.array) -> int:
    number: Any = array.item()
    return int(number)


@cache
def reference(prompt: tuple[int, ...], count: int, kind: Kind = "plain") -> list[int]:
    """The greedy answer of the tiny model of that kind with mlx-lm's own cache."""
    model, answer = MODELS[kind](), []
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
    markup: Markup = PLAIN

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        salt: bytes = b"",
        *,
        continues: bool = False,
    ) -> tuple[int, ...]:
        return self.encode(" ".join(str(message["content"]) for message in messages))

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in text.split())

    def encode_inner(self, text: str) -> tuple[int, ...]:
        return self.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(f"<{token}>" for token in tokens)

    def verbatim(self, tokens: Sequence[int]) -> str:
        return self.decode(tokens)

    def text_stream(
        self, shown_ids: frozenset[int] = frozenset(), lead: Sequence[int] = ()
    ) -> TinyStream:
        return TinyStream()

    def grammar_tokenizer(self) -> LLTokenizer | None:
        return None

    def remember(self, turn: SampledTurn, salt: bytes) -> None:
        pass

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
    uncached: str = ""
    is_recurrent: bool = False


def windowed() -> TinyLoaded:
    """A model of which some layers see a window only."""
    return TinyLoaded(windowed_model(), geometry=WINDOWED_GEOMETRY)


def recurrent() -> TinyLoaded:
    """A model that cannot be cached."""
    reason = "layers that keep ArraysCache cannot be cached yet"
    return TinyLoaded(recurrent_model(), geometry=NOTHING, uncached=reason)


def hybrid() -> TinyLoaded:
    """A model of which some layers keep a state and others K and V."""
    return TinyLoaded(hybrid_model(), geometry=HYBRID_GEOMETRY, is_recurrent=True)


def parallel() -> TinyLoaded:
    """A model whose layers keep both."""
    return TinyLoaded(parallel_model(), geometry=HYBRID_GEOMETRY, is_recurrent=True)


LOADED: dict[Kind, Callable[[], TinyLoaded]] = {
    "plain": TinyLoaded,
    "windowed": windowed,
    "recurrent": recurrent,
    "hybrid": hybrid,
    "parallel": parallel,
}


def open_pool(
    path: Path | None = None,
    size_bytes: int = 8 << 20,
    geometry: Geometry = GEOMETRY,
    codec: CodecName = "exact",
) -> Pool:
    """A pool for the tiny model, in memory without a path."""
    return Pool.open(
        path, geometry=geometry, codec=codec, fingerprint=FINGERPRINT, size_bytes=size_bytes
    )


def build(
    loaded: TinyLoaded | None = None,
    pool: Pool | None = None,
    book: AgentBook | None = None,
    **options: float,
) -> Engine:
    """An engine; whatever is not given is tiny."""
    chosen = EngineOptions(**options)  # type: ignore[arg-type]
    loaded = loaded or TinyLoaded()
    return Engine(loaded, pool or open_pool(geometry=loaded.geometry), book, chosen)


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
