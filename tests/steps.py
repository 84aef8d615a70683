"""What a decode step costs at 1, 3, 5 and 8 rows, and how much of it is not the model's.

    python tests/steps.py [--context 500]

Runs the engine over the embedded model, without HTTP. The batches take turns, so that what else the
machine does falls on all of them; each figure is the lower quartile of its steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dovecote_native import blas

ROWS = (1, 3, 5, 8)
ROUNDS, STEPS = 3, 16


class Batch:
    """An engine whose rows all decode; the time inside the runner is told apart."""

    def __init__(self, loaded: Any, rows: int, context: int) -> None:
        from dovecote_cache import Pool
        from dovecote_engine import Engine, EngineOptions, Request, Sampling

        pool = Pool.open(
            None, geometry=loaded.geometry, codec="q8", fingerprint=bytes(32), size_bytes=512 << 20
        )
        self._engine = Engine(loaded, pool, None, EngineOptions())
        self._runner_s = 0.0
        runner: Any = self._engine._runner
        self._run, runner.run = runner.run, self._timed
        started = 0
        for row in range(rows):
            prompt = tuple((1000 + 37 * row + 7 * n) % 40000 for n in range(context + row))
            sampling = Sampling(temperature=0.0)
            self._engine.submit(Request(str(row), prompt, 400, sampling, agent=str(row)))
        while started < rows:
            started += sum(type(event).__name__ == "Started" for event in self._engine.step())
        self.steps: list[float] = []
        self.others: list[float] = []

    def go(self, steps: int) -> None:
        """Decodes; the first step is not counted."""
        for number in range(steps + 1):
            began = time.perf_counter()
            self._engine.step()
            seconds = time.perf_counter() - began
            if number:
                self.steps.append(seconds)
                self.others.append(seconds - self._runner_s)

    def close(self) -> None:
        self._engine.close()

    def _timed(self, plan: Any) -> Any:
        began = time.perf_counter()
        outcome = self._run(plan)
        self._runner_s = time.perf_counter() - began
        return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--context", type=int, default=500, help="tokens of each row")
    parser.add_argument("--models-dir", type=Path, help="where the model is converted to")
    parser.add_argument("--threads", type=int, help="all cores unless told")
    arguments = parser.parse_args()
    blas.activate(arguments.threads)
    from dovecote_engine import load_model

    with tempfile.TemporaryDirectory() as scratch:
        loaded = load_model("embedded", models_dir=arguments.models_dir or Path(scratch))
        loaded = replace(loaded, eos_ids=frozenset())  # no answer ends by itself
        batches = {rows: Batch(loaded, rows, arguments.context) for rows in ROWS}
        for _ in range(ROUNDS):
            for batch in batches.values():
                batch.go(STEPS)
        print(table(batches))
        for batch in batches.values():
            batch.close()


def table(batches: dict[int, Batch]) -> str:
    lines = ["| rows | step | of one row's | tokens/s, of one row's | not the model |"]
    lines.append("|---|---|---|---|---|")
    alone = low(batches[1].steps)
    for rows, batch in batches.items():
        step, other = low(batch.steps), low(batch.others)
        ratio, share = step / alone, other / step
        lines.append(
            f"| {rows} | {1000 * step:.1f} ms | {ratio:.2f} | {rows / ratio:.2f} | {share:.1%} |"
        )
    return "\n".join(lines)


def low(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=4)[0]


if __name__ == "__main__":
    main()
