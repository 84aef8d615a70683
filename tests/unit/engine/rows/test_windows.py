"""Layers that see a window keep a ring, resume from their window's blocks, and change no token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache
from tiny_engine import (
    BLOCK,
    WINDOW,
    WINDOWED_GEOMETRY,
    Answers,
    assert_idle,
    build,
    cached_tokens,
    drive,
    greedy,
    open_pool,
    reference,
    windowed,
    windowed_model,
)

from dovecote_engine.models.probe import probe
from dovecote_engine.rows.layer_cache import ChunkCursor, DecodeCursor, Ring, layer_caches
from dovecote_engine.rows.slab import CAPACITY_STEP_TOKENS as STEP
from dovecote_engine.rows.slab import Slab

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote_cache import CodecName
    from dovecote_engine.engine import Engine
    from dovecote_engine.rows.layer_cache import Cursor, LayerCache

CHUNK = 24
RING = WINDOW + CHUNK
CODECS: tuple[CodecName, ...] = ("exact", "f16", "q8", "k8v4", "q4")


def _prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


def _engine(path: Path | None = None, codec: CodecName = "exact", **options: float) -> Engine:
    pool = open_pool(path, geometry=WINDOWED_GEOMETRY, codec=codec)
    return build(windowed(), pool, None, max_chunk_tokens=CHUNK, **options)


def _at(caches: list[LayerCache], cursor: Cursor) -> list[LayerCache]:
    for cache in caches:
        cache.cursor = cursor
    return caches


def _close(found: mx.array, wanted: mx.array) -> bool:
    return bool(mx.allclose(found, wanted, rtol=1e-4, atol=1e-4).item())


def test_the_probe_finds_the_windows() -> None:
    """Gemma 3 is cached as it is: two of three layers with a window."""
    findings = probe(windowed_model(), BLOCK)
    assert (findings.geometry, findings.uncached) == (WINDOWED_GEOMETRY, "")


def test_chunks_in_a_ring_give_the_logits_of_mlx_lm() -> None:
    """Whatever the chunks are and however often the ring came round."""
    model, tokens = windowed_model(), _prompt(150)
    wanted = model(mx.array([tokens]), cache=make_prompt_cache(model))
    slab = Slab(WINDOWED_GEOMETRY, 1 << 30, CHUNK)
    slab.reserve(2, 256)
    caches = layer_caches(slab)
    ends = [1, 2, 17, 40, 41, 64, 88, 90, 114, 115, 139, 150]
    for start, end in zip([0, *ends], ends, strict=False):
        found = model(mx.array([tokens[start:end]]), cache=_at(caches, ChunkCursor(1, start, end)))
        assert _close(found, wanted[:, start:end])


def test_ragged_rows_in_rings_decode_as_if_alone() -> None:
    """Rows on either side of window and ring, over more steps than a ring has places."""
    model = windowed_model()
    rows = [[*_prompt(length, length)] for length in (3, 130, 15, 39, 40, 70)]
    slab = Slab(WINDOWED_GEOMETRY, 1 << 30, CHUNK)
    slab.reserve(len(rows), 256)
    caches = layer_caches(slab)
    alone = [make_prompt_cache(model) for _ in rows]
    for row, tokens in enumerate(rows):
        for start in range(0, len(tokens), CHUNK):
            chunk = tokens[start : start + CHUNK]
            piece = ChunkCursor(row, start, start + len(chunk))
            model(mx.array([chunk]), cache=_at(caches, piece))
        model(mx.array([tokens]), cache=alone[row])
    for step in range(RING + 5):
        newest = [[(row * 7 + step * 3) % 100] for row in range(len(rows))]
        cursor = DecodeCursor([len(tokens) + step for tokens in rows])
        found = model(mx.array(newest), cache=_at(caches, cursor))
        for row, token in enumerate(newest):
            wanted = model(mx.array([token]), cache=alone[row])
            assert _close(found[row], wanted[0])


def test_a_narrower_window_than_the_layers_own_is_kept_to() -> None:
    """Some models ask for fewer positions than their cache holds."""
    ring = Ring(RING, WINDOW)
    chunk = ChunkCursor(0, 50, 52).mask(return_array=False, window_size=4, ring=ring)
    seen = [np.flatnonzero(row).tolist() for row in np.array(chunk)]
    assert seen == [[12, 13, 14, 15], [13, 14, 15, 16]]
    decode = DecodeCursor([50]).mask(return_array=False, window_size=4, ring=ring)
    places = np.flatnonzero(np.array(decode)[0, 0, 0])
    assert sorted(places.tolist()) == sorted(place % RING for place in (47, 48, 49, 50))


def test_a_windowed_row_takes_its_ring_and_no_more() -> None:
    """What a longer row adds is its layers without a window; the budget knows it."""
    slab = Slab(WINDOWED_GEOMETRY, 1 << 30, CHUNK)
    slab.reserve(1, 4 * STEP)
    plane = 2 * 32 * 4
    assert slab.bytes == 2 * plane * (4 * STEP + 2 * RING)
    tight = Slab(WINDOWED_GEOMETRY, slab.bytes, CHUNK)
    assert tight.row_limit_tokens == 4 * STEP
    assert tight.can_reserve(1, 4 * STEP)
    assert not tight.can_reserve(1, 4 * STEP + 1)


def test_an_answer_is_the_one_that_mlx_lm_gives() -> None:
    """Greedy tokens of a prompt of many windows are those over mlx-lm's rotating caches."""
    prompt = _prompt(150)
    answer = drive(_engine(), greedy("r", prompt, 60))["r"]
    assert answer.tokens == reference(prompt, 60, "windowed")


def test_a_batch_answers_as_each_would_alone() -> None:
    """Rows of all lengths join and leave, move and grow without a trace in anyone's tokens."""
    engine = _engine(max_rows=4)
    prompts = {f"r{length}": _prompt(length, length) for length in (150, 8, 41, 330, 16, 70)}
    requests = [greedy(name, prompt, 10 + len(prompt) % 50) for name, prompt in prompts.items()]
    answers = drive(engine, *requests)
    for request in requests:
        assert answers[request.id].tokens == reference(
            request.prompt, request.max_tokens or 0, "windowed"
        )


def _conversation(engine: Engine, turns: int, name: str = "") -> list[tuple[int, list[int]]]:
    """What each turn had cached, and its answer. A turn adds a question to all that was said."""
    said: tuple[int, ...] = _prompt(30, 1)
    told = []
    for turn in range(turns):
        answer = drive(engine, greedy(f"{name}{turn}", said, 9))[f"{name}{turn}"]
        told.append((cached_tokens(answer), answer.tokens))
        said = (*said, *answer.tokens, *_prompt(5 + 4 * turn, turn))
    return told


def test_every_turn_resumes_where_the_last_one_ended() -> None:
    """All that was computed is found again, to the token, and the answer is a cold run's."""
    said: tuple[int, ...] = _prompt(30, 1)
    cached = 0
    for turn, (found, tokens) in enumerate(_conversation(_engine(), 9)):
        assert found == cached
        assert tokens == reference(said, 9, "windowed")
        cached = len(said) + len(tokens) - 1
        said = (*said, *tokens, *_prompt(5 + 4 * turn, turn))


@pytest.mark.parametrize("codec", CODECS)
def test_hot_and_restarted_turns_are_equal(tmp_path: Path, codec: CodecName) -> None:
    """With every codec a turn's tokens do not tell whether the server stopped before it."""
    text, ends = _prompt(180, 2), (30, 41, 75, 76, 131, 180)
    hot = _engine(tmp_path / "hot", codec)
    for turn, end in enumerate(ends):
        wanted = drive(hot, greedy(f"{turn}", text[:end], 9))[f"{turn}"]
        engine = _engine(tmp_path / "restarted", codec)
        found = drive(engine, greedy(f"{turn}", text[:end], 9))[f"{turn}"]
        engine.close()
        assert found.tokens == wanted.tokens
        assert cached_tokens(found) == cached_tokens(wanted) >= (ends[turn - 1] if turn else 0)


def test_a_prompt_that_diverges_inside_the_window_resumes_to_the_token() -> None:
    """The tail of a block that goes another way is sealed anew, out of the ring."""
    engine = _engine()
    stem = _prompt(100)
    drive(engine, greedy("stem", stem, 4))
    for length in (1, 7, 15, 16, 17, 43, 61, 99):
        prompt = (*stem[:length], *_prompt(40, length))
        for name in ("diverging", "again"):
            answer = drive(engine, greedy(name, prompt, 12))[name]
            assert answer.tokens == reference(prompt, 12, "windowed")
            assert cached_tokens(answer) == (length if name == "diverging" else len(prompt) - 1)


def test_windowed_layers_read_only_the_blocks_of_their_window() -> None:
    """Of a long chain a windowed layer needs the last two or three blocks, not all."""
    engine = _engine()
    prompt = _prompt(40 * BLOCK)
    drive(engine, greedy("cold", prompt, 1))
    before = engine.status.pool.bytes_read
    drive(engine, greedy("warm", prompt, 1))
    read = engine.status.pool.bytes_read - before
    block = 2 * 2 * 32 * 4 * BLOCK
    assert 40 * block <= read <= (40 + 2 * 4) * block


def test_every_turn_writes_its_own_tokens_and_no_window_again() -> None:
    """Bytes written follow the tokens: a conversation of many turns writes each block once."""
    engine = _engine()
    told = _conversation(engine, 9)
    tokens = told[-1][0] + 60
    pool = engine.status.pool
    assert pool.sealed_blocks * BLOCK <= tokens + 9 * BLOCK
    assert pool.bytes_written <= (tokens // BLOCK + 2) * pool.frame_bytes


@pytest.mark.parametrize("block", (1, 9, 11, 12))
def test_a_damaged_block_costs_time_and_no_token(tmp_path: Path, block: int) -> None:
    """The chain ends before it, and windowed layers fall back to the window of what is left."""
    path, prompt = tmp_path / "pool", _prompt(13 * BLOCK + 2)
    engine = _engine(path)
    slab: Any = engine._rows
    drive(engine, greedy("cold", prompt, 6))
    keys = np.array(slab.keys[1][0, 0, block * BLOCK : (block + 1) * BLOCK]).tobytes()
    content = path.read_bytes()
    assert content.count(keys) == 1
    place = content.index(keys) + 200
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([content[place] ^ 0xFF]))
    answer = drive(engine, greedy("warm", prompt, 6))["warm"]
    assert answer.tokens == reference(prompt, 6, "windowed")
    assert cached_tokens(answer) == block * BLOCK


def test_restores_in_slices_between_decode_steps_change_nothing() -> None:
    """A long chain comes back a few blocks a step, beside a row that decodes."""
    engine = _engine(restore_seconds=1e-9, max_rows=3)
    long = _prompt(250, 3)
    drive(engine, greedy("cold", long, 1))
    answers = Answers()
    engine.submit(greedy("beside", _prompt(20, 4), 90))
    while answers["beside"].started is None:
        answers.step(engine)
    engine.submit(greedy("warm", (*long, *_prompt(6, 5)), 30))
    engine.submit(greedy("new", _prompt(33, 6), 30))
    while engine.wait(0):
        answers.step(engine)
    assert_idle(engine)
    assert cached_tokens(answers["warm"]) == 250
    assert answers["beside"].tokens == reference(_prompt(20, 4), 90, "windowed")
    assert answers["warm"].tokens == reference((*long, *_prompt(6, 5)), 30, "windowed")
    assert answers["new"].tokens == reference(_prompt(33, 6), 30, "windowed")


def test_a_pool_that_is_full_stops_sealing_and_nothing_else() -> None:
    """What was not sealed in time has left the ring, and is never sealed from it."""
    pool = open_pool(size_bytes=1 << 17, geometry=WINDOWED_GEOMETRY)
    engine = build(windowed(), pool, max_chunk_tokens=CHUNK)
    prompt = _prompt(pool.frames * BLOCK + 60)
    for name in ("cold", "warm"):
        answer = drive(engine, greedy(name, prompt, 30))[name]
        assert answer.tokens == reference(prompt, 30, "windowed")
