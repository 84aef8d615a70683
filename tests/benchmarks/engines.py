"""Engines over models whose weights are made up, for the benchmarks that need a model to run.

The large one has SmolLM2-135M's shape to the last number, so a step costs what the embedded model's
costs: no time depends on what the weights are. Nothing has to be downloaded or converted. As in
`common`, nothing of the project is imported before a benchmark runs, and a commit in which one of
the parts is missing skips the benchmark.
"""

from __future__ import annotations

import functools
import itertools
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .common import BLOCK_TOKENS, SMOL, Row, Shape, row_of, token_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FINGERPRINT = bytes(32)
NAMES = itertools.count()


@dataclass(frozen=True)
class Model:
    """A llama: the shape of its K and V, and what else its size depends on."""

    kv: Shape
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    context_tokens: int
    threads: int | None = None
    """Of the BLAS; as many as there are processors if None. Idle ones spin for a while."""


SMOL_MODEL = Model(SMOL, hidden=576, inner=1536, heads=9, vocabulary=49152, context_tokens=9216)
SMALL_MODEL = Model(Shape(2, 2, 32), 64, 128, 4, vocabulary=512, context_tokens=2048, threads=1)


class Words:
    """A tokenizer whose texts are token ids with spaces between them."""

    eos_ids: frozenset[int] = frozenset()
    token_characters = 6

    def render(
        self,
        messages: Sequence[Any],
        tools: object = None,
        salt: bytes = b"",
        *,
        continues: bool = False,
    ) -> tuple[int, ...]:
        return self.encode(" ".join(str(message["content"]) for message in messages))

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in text.split())

    encode_inner = encode

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(f"{token} " for token in tokens)

    verbatim = decode

    def token_bytes(self, token: int) -> bytes:
        return f"{token} ".encode()

    def text_stream(
        self, shown_ids: frozenset[int] = frozenset(), lead: Sequence[int] = ()
    ) -> WordStream:
        return WordStream()

    @property
    def markup(self) -> Any:
        return moved("dovecote_engine.text.markup", "dovecote_engine.markup").PLAIN

    def grammar_tokenizer(self) -> None:
        return None

    def remember(self, turn: object, salt: bytes) -> None:
        pass


class WordStream:
    """The text of one token after the other."""

    def push(self, token: int) -> str:
        return f"{token} "

    def finish(self) -> str:
        return ""


@dataclass(frozen=True)
class Loaded:
    """What the engine's loader would give."""

    model: Any
    geometry: Any
    context_tokens: int
    tokenizer: Words = field(default_factory=Words)
    id: str = "made-up"
    eos_ids: frozenset[int] = frozenset()
    created: int = 1
    uncached: str = ""
    is_recurrent: bool = False

    @property
    def weight_bytes(self) -> int:
        from mlx.utils import tree_flatten

        return sum(each.nbytes for _, each in tree_flatten(self.model.parameters()))


@contextmanager
def skipped_where_absent() -> Iterator[None]:
    """Has asv skip the benchmark at a commit that lacks what the block uses."""
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        raise NotImplementedError(str(error)) from error


def moved(*names: str) -> Any:
    """The module by the first of its names that there is: older commits have the later ones."""
    for name in names[:-1]:
        with suppress(ImportError):
            return import_module(name)
    return import_module(names[-1])


@functools.cache
def loaded(model: Model) -> Loaded:
    """The model in memory. Puts the BLAS library in place first, as the server does."""
    _put_blas_in_place(model)
    with skipped_where_absent():
        from mlx_lm.models import llama

    made = llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=model.hidden,
            num_hidden_layers=model.kv.layers,
            intermediate_size=model.inner,
            num_attention_heads=model.heads,
            num_key_value_heads=model.kv.kv_heads,
            head_dim=model.kv.head_dim,
            rms_norm_eps=1e-5,
            vocab_size=model.vocabulary,
            rope_theta=100_000,
            rope_traditional=True,
            tie_word_embeddings=True,
        )
    )
    _fill(made)
    return Loaded(made, geometry_of(model.kv), model.context_tokens)


def _put_blas_in_place(model: Model) -> None:
    """Before MLX is imported, which nothing may have done until here.

    Raises: RuntimeError if it cannot be done; a large model's times would be those of the reference
    BLAS, thirty times as long. A small one's products are too small to matter.
    """
    with skipped_where_absent():
        from dovecote_native import blas

        report = blas.activate(model.threads)
        if blas.mlx_needs_shim() and not report.active and model.threads is None:
            raise RuntimeError(report.reason)


def _fill(model: Any) -> None:
    """Numbers of the usual size in place of the initial ones, which are slow to draw."""
    import mlx.core as mx
    from mlx.utils import tree_map

    drawn = np.random.default_rng(2).standard_normal(1 << 20, dtype=np.float32) * np.float32(0.02)

    def filled(array: Any) -> Any:
        return mx.array(np.resize(drawn, array.shape)) if array.ndim > 1 else array

    model.update(tree_map(filled, model.parameters()))
    mx.eval(model.parameters())


def geometry_of(shape: Shape) -> Any:
    """The shape as the cache knows it."""
    from dovecote_cache import Geometry, LayerShape

    layer = LayerShape(shape.kv_heads, shape.head_dim, shape.head_dim)
    return Geometry((layer,) * shape.layers, "float32", BLOCK_TOKENS)


def pool_of(model: Model, frames: int, name: str = "", codec: Any = "q8") -> Any:
    """A pool with room for about that many frames: a file of that name, in memory without one."""
    from dovecote_cache import Pool

    frame_bytes = (geometry_of(model.kv).payload_bytes(codec) // 4096 + 2) * 4096
    return Pool.open(
        Path.cwd() / name if name else None,
        geometry=geometry_of(model.kv),
        codec=codec,
        fingerprint=FINGERPRINT,
        size_bytes=8192 + frames * (frame_bytes + 512),
    )


def fill_pool(pool: Any, model: Model, tokens: Sequence[int]) -> None:
    """Cache a prompt without computing it: K and V that are made up restore as fast as true ones.

    Whole blocks only, so that what the next turn appends begins a block of its own.
    """
    from .common import seal

    assert len(tokens) % BLOCK_TOKENS == 0
    row: Row = row_of(model.kv, len(tokens))
    seal(pool, row, np.asarray(tokens, np.uint32))


def engine_of(model: Model, pool: Any, book: Any = None, **options: Any) -> Any:
    """An engine over the pool; options that the commit does not know skip the benchmark."""
    ready = loaded(model)  # before the engine's import of MLX
    with skipped_where_absent():
        from dovecote_engine.engine import Engine
        from dovecote_engine.options import EngineOptions

        return Engine(ready, pool, book, EngineOptions(**options))


def words(model: Model, count: int, seed: int) -> tuple[int, ...]:
    """Token ids that no other seed has."""
    return tuple(int(token) % model.vocabulary for token in token_ids(count, seed))


def request_of(prompt: Sequence[int], max_tokens: int, agent: str | None = None) -> Any:
    """A greedy request under a name of its own."""
    from dovecote_engine.request import Request, Sampling

    name = f"request-{next(NAMES)}"
    return Request(name, tuple(prompt), max_tokens, Sampling(temperature=0.0), agent)


def run_out(engine: Any) -> None:
    """Step until there is nothing to do."""
    while engine.wait(0):
        engine.step()


def first_token_seconds(engine: Any, request: Any) -> float:
    """From submission to the first token, which is evaluated by then; the rest runs off the clock.

    Raises: RuntimeError if the request fails.
    """
    started = time.perf_counter()
    engine.submit(request)
    while engine.wait(0):
        for event in engine.step():
            if type(event).__name__ == "Failed":
                raise RuntimeError(event.message)
            if type(event).__name__ == "TokenEvent":
                seconds = time.perf_counter() - started
                run_out(engine)
                return seconds
    raise RuntimeError("the engine gave no token")


def decode_step_seconds(engine: Any, prompts: Sequence[Sequence[int]], steps: int) -> list[float]:
    """Each of `steps` steps in which every one of the prompts' rows, and nothing else, runs.

    The prompts should be cached but for their ends. The requests are cancelled afterwards.
    """
    requests = [request_of(prompt, steps + 8 * len(prompts) + 64) for prompt in prompts]
    for request in requests:
        engine.submit(request)
    _until_all_decode(engine, len(requests))
    found = [seconds_of(engine.step) for _ in range(steps)]
    for request in requests:
        engine.cancel(request.id)
    run_out(engine)
    return found


def _until_all_decode(engine: Any, rows: int) -> None:
    """Step until one step gives each row a token, and once more."""
    begun: set[str] = set()
    while len(begun) < rows and engine.wait(0):
        begun |= {e.request_id for e in engine.step() if type(e).__name__ == "TokenEvent"}
    engine.step()


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock time of `work`."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
