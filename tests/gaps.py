"""How long running rows wait for their next token while a long prompt joins them.

    python tests/gaps.py [--rows 3] [--prompt 1500]

Measures the engine over the embedded model, without HTTP. For each way to join (cold, warm with a
new suffix, restored whole) a fresh engine decodes some rows, first alone and then beside the
joining prompt, whose first token ends the measurement: the growth of the slab is in it. The promise
is a p99 below three times the median gap of the same rows alone; a busy machine breaks it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dovecote_native import blas

if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE_STEPS = 60
PREFIX_TOKENS = 1024
POOL_BYTES = 512 << 20


@dataclass(frozen=True)
class Gaps:
    """Seconds between tokens, alone and while another prompt joined; its time to first token."""

    alone: Sequence[float]
    joined: Sequence[float]
    first_token_s: float

    @property
    def p99_s(self) -> float:
        ordered = sorted(self.joined)
        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]

    @property
    def ratio(self) -> float:
        return self.p99_s / statistics.median(self.alone)


class Bench:
    """The loaded model, and an engine a measurement."""

    def __init__(self, models_dir: Path, rows: int, prompt_tokens: int) -> None:
        from dovecote_engine import load_model

        self._loaded = load_model("embedded", models_dir=models_dir)
        self._rows = rows
        self._prompt_tokens = prompt_tokens

    def cold(self) -> Gaps:
        """Nothing of the prompt is cached."""
        return self._measure(cached=0)

    def suffix(self) -> Gaps:
        """PREFIX_TOKENS are cached, the rest is computed."""
        return self._measure(cached=PREFIX_TOKENS)

    def restored(self) -> Gaps:
        """All but the last token is cached."""
        return self._measure(cached=self._prompt_tokens)

    def _measure(self, cached: int) -> Gaps:
        from dovecote_cache import Pool
        from dovecote_engine import Engine, EngineOptions

        geometry = self._loaded.geometry
        pool = Pool.open(
            None, geometry=geometry, codec="q8", fingerprint=bytes(32), size_bytes=POOL_BYTES
        )
        prompt = self._tokens(self._prompt_tokens, 7)
        if cached:  # by another engine over the same pool, so that the measured slab is small
            self._run(Engine(self._loaded, pool, None, EngineOptions()), prompt[:cached])
        engine = Engine(self._loaded, pool, None, EngineOptions())
        self._start_rows(engine)
        alone = [self._gap(engine) for _ in range(IDLE_STEPS)]
        joined, began = [], time.perf_counter()
        engine.submit(self._request("joining", prompt, 5))
        started = False
        while not started:
            before = time.perf_counter()
            started = any(_started(event, "joining") for event in engine.step())
            joined.append(time.perf_counter() - before)
        first_token_s = time.perf_counter() - began
        for name in ("joining", *map(str, range(self._rows))):
            engine.cancel(name)
        while engine.wait(0):
            engine.step()
        engine.close()
        return Gaps(alone, joined, first_token_s)

    def _start_rows(self, engine: Any) -> None:
        for row in range(self._rows):
            engine.submit(self._request(str(row), self._tokens(60 + row, row), 700))
        waiting = {str(row) for row in range(self._rows)}
        while waiting:
            waiting -= {event.request_id for event in engine.step() if _started(event)}
        for _ in range(5):
            engine.step()

    def _run(self, engine: Any, prompt: tuple[int, ...]) -> None:
        engine.submit(self._request("before", prompt, 1))
        while engine.wait(0):
            engine.step()

    def _gap(self, engine: Any) -> float:
        began = time.perf_counter()
        engine.step()
        return time.perf_counter() - began

    def _request(self, name: str, prompt: tuple[int, ...], max_tokens: int) -> Any:
        from dovecote_engine import Request, Sampling

        return Request(name, prompt, max_tokens, Sampling(temperature=0.0), agent=name)

    def _tokens(self, count: int, seed: int) -> tuple[int, ...]:
        import numpy as np

        low, high = 1000, 40000  # no special tokens
        ids = np.random.default_rng(seed).integers(low, high, count)
        return tuple(int(token) for token in ids)


def _started(event: Any, name: str | None = None) -> bool:
    return type(event).__name__ == "Started" and name in (None, event.request_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=3, help="rows that decode")
    parser.add_argument("--prompt", type=int, default=1500, help="tokens of the joining prompt")
    parser.add_argument("--models-dir", type=Path, help="where the model is converted to")
    parser.add_argument("--threads", type=int, help="threads of OpenBLAS; all cores unless told")
    parser.add_argument("--rounds", type=int, default=1, help="of each way to join")
    arguments = parser.parse_args()
    blas.activate(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.models_dir or Path(scratch)
        bench = Bench(folder, arguments.rows, arguments.prompt)
        print("| joining | alone, median | p50 | p99 | longest | p99 / alone | first token |")
        print("|---|---|---|---|---|---|---|", flush=True)
        bench.suffix()  # MLX compiles its kernels at their first use
        measures = (bench.cold, bench.suffix, bench.restored)
        rounds: dict[str, list[Gaps]] = {measure.__name__: [] for measure in measures}
        for _ in range(arguments.rounds):
            for measure in measures:
                rounds[measure.__name__].append(measure())
                _print_row(measure.__name__, rounds[measure.__name__][-1])
        if arguments.rounds > 1:
            for name, found in rounds.items():
                _print_row(f"{name}, all rounds", _together(found))


def _together(rounds: Sequence[Gaps]) -> Gaps:
    """Of all rounds, since the p99 of the forty gaps of one is just its longest."""
    return Gaps(
        [gap for gaps in rounds for gap in gaps.alone],
        [gap for gaps in rounds for gap in gaps.joined],
        statistics.median(gaps.first_token_s for gaps in rounds),
    )


def _print_row(name: str, gaps: Gaps) -> None:
    numbers = (statistics.median(gaps.alone), statistics.median(gaps.joined), gaps.p99_s)
    times = " | ".join(f"{1000 * number:.0f} ms" for number in (*numbers, max(gaps.joined)))
    print(f"| {name} | {times} | {gaps.ratio:.1f} | {gaps.first_token_s:.2f} s |", flush=True)


if __name__ == "__main__":
    main()
