"""Models with recurrent state: docs/decisions/0021-recurrent-state.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import lfm2
from tiny_engine import (
    BLOCK,
    HYBRID_GEOMETRY,
    LOADED,
    MODELS,
    Answer,
    Answers,
    Kind,
    TinyLoaded,
    assert_idle,
    build,
    cached_tokens,
    drive,
    greedy,
    hybrid,
    hybrid_model,
    open_pool,
    reference,
)

from dovecote_cache import AgentBook, Checkpoints, Pool
from dovecote_cache.checkpoints import states_path
from dovecote_engine.models.probe import Findings, probe
from dovecote_engine.request import Request, Sampling
from dovecote_engine.rows.recurrent_rows import RecurrentRows

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from dovecote_cache import DTypeName
    from dovecote_engine.engine import Engine

KINDS: tuple[Kind, ...] = ("hybrid", "parallel")
ANSWER = 12
both = pytest.mark.parametrize("kind", KINDS)


def _prompt(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 100, count))


def _engine(kind: Kind = "hybrid", path: Path | None = None, **options: float) -> Engine:
    pool = open_pool(path, geometry=HYBRID_GEOMETRY)
    return build(LOADED[kind](), pool, AgentBook.in_memory(), **options)


def _ask(
    engine: Engine, prompt: tuple[int, ...], kind: Kind = "hybrid", count: int = ANSWER
) -> Answer:
    """An answer that is the model's own, whatever of the prompt was cached."""
    answer = drive(engine, greedy("r", prompt, count, "ada"))["r"]
    assert answer.tokens == reference(prompt, count, kind)
    return answer


def _checkpoints(engine: Engine) -> Checkpoints:
    rows = engine._rows
    assert isinstance(rows, RecurrentRows)
    return rows.checkpoints


@both
def test_the_kinds_are_found_at_load(kind: Kind) -> None:
    """The geometry is that of the layers that keep K and V, in lists of caches too."""
    wanted = Findings(HYBRID_GEOMETRY, is_recurrent=True)
    assert probe(MODELS[kind](), BLOCK) == wanted


@both
@pytest.mark.parametrize("restarted", (False, True))
def test_a_turn_resumes_where_the_last_one_ended(
    kind: Kind, restarted: bool, tmp_path: Path
) -> None:
    """At its last whole block, hot as after a restart, and with the tokens of a cold run."""
    path = tmp_path / "a.pool"
    engine = _engine(kind, path)
    history = _prompt(61)
    for turn in range(4):
        answer = _ask(engine, history, kind)
        computed = len(history) + ANSWER - 1
        assert cached_tokens(answer) == (turn and (len(history) - 5 - 1) // BLOCK * BLOCK)
        history += (*answer.tokens, *_prompt(4, turn), 7)
        assert computed // BLOCK == (len(history) - 5 - 1) // BLOCK
        if restarted:
            engine.close()
            engine = _engine(kind, path)
    engine.close()


@both
@pytest.mark.parametrize("chunk_tokens", (1, 5, BLOCK, 23, 512))
def test_a_prompt_that_comes_again_is_computed_from_its_last_block(
    kind: Kind, chunk_tokens: int
) -> None:
    """However it was cut into chunks; of one that ends with a block the last block is computed."""
    engine = _engine(kind, max_chunk_tokens=chunk_tokens)
    for count in (7, 8, 9, 40, 61):
        prompt = _prompt(count, count)
        assert cached_tokens(_ask(engine, prompt, kind)) == 0
        assert cached_tokens(_ask(engine, prompt, kind)) == (count - 1) // BLOCK * BLOCK


def test_a_prompt_that_goes_another_way_falls_back() -> None:
    """To the last checkpoint before; to nothing where there is none."""
    engine = _engine()
    first = _prompt(61)
    answer = _ask(engine, first)
    second = (*first, *answer.tokens, *_prompt(30, 1))
    _ask(engine, second)
    # Within the second turn: the first one's end. Within the first answer: its prompt's last block.
    assert cached_tokens(_ask(engine, (*second[:80], 1, 2, 3))) == 72
    assert cached_tokens(_ask(engine, (*second[:66], 1, 2, 3))) == 56
    # Within the first prompt, before any checkpoint.
    assert cached_tokens(_ask(engine, (*second[:30], 1, 2, 3))) == 0


def test_a_shared_beginning_is_kept_when_it_shows() -> None:
    """The second to begin so leaves a checkpoint where it goes its own way: the third resumes."""
    engine = _engine()
    shared = _prompt(100)
    found = [cached_tokens(_ask(engine, shared + _prompt(20, seed))) for seed in (1, 2, 3)]
    assert found == [0, 0, 96]


def test_a_turn_keeps_two_states_at_most(tmp_path: Path) -> None:
    """However long prompt and answer are, and a chain keeps a few."""
    engine = _engine(path=tmp_path / "a.pool")
    prompt = _prompt(200)
    prompt += tuple(_ask(engine, prompt, count=100).tokens)
    assert _checkpoints(engine).count == 2
    state_bytes = _checkpoints(engine).bytes // 2
    for _ in range(6):
        prompt += (*_ask(engine, prompt).tokens, *_prompt(10))
    assert _checkpoints(engine).count <= 4
    _checkpoints(engine).flush()
    files = list(states_path(tmp_path / "a.pool").iterdir())
    assert sum(file.stat().st_size for file in files) == _checkpoints(engine).bytes
    assert len(files) * state_bytes == _checkpoints(engine).bytes
    engine.close()


def test_a_small_pool_bounds_the_states(tmp_path: Path) -> None:
    """Many conversations: bytes stay within the share, and no token changes."""
    pool = open_pool(tmp_path / "a.pool", 1 << 18, HYBRID_GEOMETRY)
    engine = build(hybrid(), pool)
    for seed in range(40):
        _ask(engine, _prompt(40, seed))
        assert _checkpoints(engine).bytes <= pool.frames * pool.frame_bytes // 3
    assert 0 < _checkpoints(engine).count < 80
    engine.close()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_state_is_a_miss(tmp_path: Path) -> None:
    """The one before it takes its place, and where there is none everything is computed."""
    engine = _engine(path=tmp_path / "a.pool")
    first = _prompt(61)
    second = (*first, *_ask(engine, first).tokens, *_prompt(20, 1))
    _checkpoints(engine).flush()
    files = sorted(
        states_path(tmp_path / "a.pool").iterdir(), key=lambda file: file.stat().st_mtime_ns
    )
    assert len(files) == 2
    _flip(files[1])
    assert cached_tokens(_ask(engine, second)) == 56
    assert engine.status.counters.checkpoint_misses == 1
    _checkpoints(engine).flush()
    for file in states_path(tmp_path / "a.pool").iterdir():
        _flip(file)
    assert cached_tokens(_ask(engine, second)) == 0
    assert engine.status.counters.checkpoint_misses > 1
    assert cached_tokens(_ask(engine, second)) > 72
    engine.close()


def test_a_damaged_block_ends_the_chain_before_it(tmp_path: Path) -> None:
    """The row resumes at a checkpoint before the damage, though later ones are sound."""
    path = tmp_path / "a.pool"
    engine = _engine(path=path)
    first = _prompt(61)
    second = (*first, *_ask(engine, first).tokens, *_prompt(20, 1))
    third = (*second, *_ask(engine, second).tokens, *_prompt(20, 2))
    engine.close()
    engine = _engine(path=path)
    frames = {block: _frame_of(engine._pool, third, block) for block in (5, 10)}
    _spoil(path, frames[10])
    assert cached_tokens(_ask(engine, third)) == 72
    _spoil(path, frames[5])
    assert cached_tokens(_ask(engine, third)) == 0
    engine.close()


def _frame_of(pool: Pool, tokens: tuple[int, ...], block: int) -> bytes:
    """How a block is stored: enough to find it in the file."""
    with pool.lease(0) as lease:
        lease.match(np.array(tokens, np.uint32))
        return lease.read(block)[1][:64]


def _spoil(path: Path, stored: bytes) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(stored)
    content[at : at + 8] = bytes(each ^ 0xFF for each in content[at : at + 8])
    path.write_bytes(content)


@pytest.mark.parametrize("steps", range(1, 14))
def test_a_cancelled_request_leaves_what_is_right(steps: int) -> None:
    """Wherever it was: who asks next gets the model's own tokens, from what there is."""
    engine = _engine(max_chunk_tokens=16)
    prompt = _prompt(61)
    engine.submit(greedy("gone", prompt, 40, "ada"))
    answers = Answers()
    for _ in range(steps):
        engine.wait(0)
        answers.step(engine)
    engine.cancel("gone")
    while engine.wait(0):
        answers.step(engine)
    assert_idle(engine)
    said = tuple(answers["gone"].tokens)
    found = cached_tokens(_ask(engine, (*prompt, *said, 5, 6, 7)))
    assert found >= min(steps - 1, 3) * 16


def test_a_killed_engine_leaves_what_is_right(tmp_path: Path) -> None:
    """The files as they are in the middle of an answer: blocks to their end, the prompt's state."""
    engine = _engine(path=tmp_path / "a.pool")
    engine.submit(greedy("r", _prompt(61), 40))
    for _ in range(20):
        engine.wait(0)
        engine.step()
    _checkpoints(engine).flush()
    _copy(tmp_path, tmp_path / "after")
    other = _engine(path=tmp_path / "after" / "a.pool")
    assert cached_tokens(_ask(other, _prompt(61))) == 56
    other.close()
    engine.close()


def _copy(source: Path, target: Path) -> None:
    files = [file for file in source.rglob("*") if file.is_file()]
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())


@both
def test_choices_share_a_restored_prompt(kind: Kind) -> None:
    """Each goes on from a copy of the row, and keeps its own end."""
    engine = _engine(kind)
    prompt = _prompt(61)
    _ask(engine, prompt, kind)
    request = Request("r", prompt, ANSWER, Sampling(temperature=0.0), choices=3)
    answers = drive(engine, request)
    wanted = reference(prompt, ANSWER, kind)
    assert [answers[name].tokens for name in ("r", "r/1", "r/2")] == [wanted] * 3
    assert cached_tokens(next(each for each in answers.values() if each.finished)) == 56


@both
def test_rows_that_resume_run_beside_each_other(kind: Kind) -> None:
    """Rows that join resumed, leave, move and are cancelled change nobody's tokens."""
    engine = _engine(kind, max_rows=4, max_chunk_tokens=8)
    prompts = [_prompt(length, length // 20) for length in (33, 41, 57, 26, 29, 60)]
    for _ in range(3):
        requests = [greedy(f"r{n}", prompt, 6 + n) for n, prompt in enumerate(prompts)]
        answers = drive(engine, *requests)
        for request in requests:
            assert answers[request.id].tokens == reference(
                request.prompt, request.max_tokens or 0, kind
            )
        assert all(cached_tokens(answers[request.id]) % BLOCK == 0 for request in requests)
    assert all(cached_tokens(answers[request.id]) for request in requests)


def test_agents_fork_and_go_on(tmp_path: Path) -> None:
    """A fork resumes where its origin stood; each then goes its own way, after a restart too."""
    path, book = tmp_path / "a.pool", tmp_path / "agents.sqlite3"
    engine = build(hybrid(), open_pool(path, geometry=HYBRID_GEOMETRY), AgentBook.open(book))
    prompt = _prompt(61)
    prompt += (*_ask(engine, prompt).tokens, 3, 4)
    engine.agents.fork("ada", "bob")
    assert [agent.tokens for agent in engine.agents.list()] == [72, 72]
    engine.close()
    engine = build(hybrid(), open_pool(path, geometry=HYBRID_GEOMETRY), AgentBook.open(book))
    for agent, tail in (("ada", 10), ("bob", 20)):
        answer = drive(engine, greedy(agent, (*prompt, tail), ANSWER, agent))[agent]
        assert answer.tokens == reference((*prompt, tail), ANSWER, "hybrid")
        assert cached_tokens(answer) == 72
        assert answer.started is not None
        assert answer.started.missed is None
    engine.close()


def test_tenants_do_not_share_states() -> None:
    """Chains under another salt have other keys."""
    engine = _engine()
    for salt, found in ((b"one", 0), (b"two", 0), (b"one", 56)):
        request = Request("r", _prompt(61), 4, Sampling(temperature=0.0), salt=salt)
        answer = drive(engine, request)["r"]
        assert cached_tokens(answer) == found
        assert answer.tokens == reference(_prompt(61), 4, "hybrid")


def test_a_forecast_says_where_a_row_would_resume() -> None:
    """Not how many blocks there are."""
    engine = _engine()
    first = _prompt(61)
    _ask(engine, first)
    for prompt, found in ((first, 56), (first[:30], 0)):
        assert engine.agents.forecast(None, prompt, b"").cached_tokens == found


def test_a_state_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    """It is counted, and the next turn is computed."""
    engine = _engine(path=tmp_path / "a.pool")
    folder = states_path(tmp_path / "a.pool")
    folder.rmdir()
    assert cached_tokens(_ask(engine, _prompt(61))) == 0
    _checkpoints(engine).flush()
    assert cached_tokens(_ask(engine, _prompt(61))) == 0
    assert engine.status.counters.seal_errors >= 2
    engine.close()


class Absent(lfm2.Model):  # type: ignore[misc]
    """A model that remembers beside its caches where it is."""

    seen = 0

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        seen = id(cache[0]) if cache else 0
        logits: mx.array = super().__call__(inputs, cache)
        is_same, self.seen = seen == self.seen, seen
        return logits if is_same else logits[..., ::-1]


def test_a_model_that_goes_on_differently_is_not_cached() -> None:
    """Caches of known kinds are no promise: the model is tried before it is trusted."""
    model = Absent(hybrid_model().args)
    model.update(hybrid_model().parameters())
    findings = probe(model, BLOCK)
    assert findings.uncached == "the model computes something else from a state that was put back"
    assert not findings.is_recurrent


def test_a_pool_too_small_for_a_state_gives_no_hits_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Rather than to drive out and write for nothing."""
    size_bytes = HYBRID_GEOMETRY.file_bytes("exact", BLOCK)
    engine = build(hybrid(), open_pool(size_bytes=size_bytes, geometry=HYBRID_GEOMETRY))
    assert "too small to keep a state of 1536 bytes" in caplog.text
    for _ in range(2):
        assert cached_tokens(_ask(engine, _prompt(20))) == 0
    assert engine.status.counters.seal_errors == 0


@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
def test_half_precision_comes_back_to_the_bit(dtype: DTypeName) -> None:
    """Of K and V and of states alike."""
    model = lfm2.Model(hybrid_model().args)
    model.update(hybrid_model().parameters())
    model.set_dtype(getattr(mx, dtype))
    findings = probe(model, BLOCK)
    assert (findings.geometry.dtype, findings.is_recurrent) == (dtype, True)
    loaded = TinyLoaded(model, geometry=findings.geometry, is_recurrent=True)
    engine = build(loaded, open_pool(geometry=findings.geometry))
    answers = [drive(engine, greedy("r", _prompt(61), ANSWER))["r"] for _ in range(2)]
    assert answers[0].tokens == answers[1].tokens
    assert [cached_tokens(answer) for answer in answers] == [0, 56]


def test_every_kind_of_tiny_model_is_loaded() -> None:
    """The tests of batching go through them."""
    assert set(LOADED) == set(MODELS) == set(get_args(Kind))
