"""Where a resumed turn's time to its first token goes: restore, prefill, and anything else.

    python tests/resume.py [--history 1800] [--new 44]

Measures the engine over the embedded model, without HTTP. Every turn begins with the same history,
which the pool holds, and goes on with new tokens; for the last turns the slab is given back first,
as after an idle minute. The promise is less than 15 ms of anything else.
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
    from collections.abc import Iterable

TURNS = 8


@dataclass(frozen=True)
class Turn:
    """Seconds to the first token, and how much of them restore and prefill took."""

    first_token_s: float
    restore_s: float
    prefill_s: float

    @property
    def other_s(self) -> float:
        return self.first_token_s - self.restore_s - self.prefill_s


class Bench:
    """An engine whose runner tells what its parts took."""

    def __init__(self, models_dir: Path) -> None:
        from dovecote_cache import Pool
        from dovecote_engine import Engine, EngineOptions, load_model

        loaded = load_model("embedded", models_dir=models_dir)
        pool = Pool.open(
            None, geometry=loaded.geometry, codec="q8", fingerprint=bytes(32), size_bytes=512 << 20
        )
        self.engine: Any = Engine(loaded, pool, None, EngineOptions())
        self._restore_s = self._prefill_s = 0.0
        runner: Any = self.engine._runner
        self._run, runner.run = runner.run, self._told

    def turn(self, prompt: tuple[int, ...]) -> Turn:
        from dovecote_engine import Request, Sampling

        self._restore_s = self._prefill_s = 0.0
        began = time.perf_counter()
        self.engine.submit(Request("turn", prompt, 1, Sampling(temperature=0.0), agent="ada"))
        while not any(type(event).__name__ == "Started" for event in self.engine.step()):
            pass
        return Turn(time.perf_counter() - began, self._restore_s, self._prefill_s)

    def _told(self, plan: Any) -> Any:
        outcome = self._run(plan)
        self._restore_s += getattr(outcome.restored, "seconds", 0.0)
        self._prefill_s += getattr(outcome.prefilled, "seconds", 0.0)
        return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--history", type=int, default=1800, help="tokens that the pool holds")
    parser.add_argument("--new", type=int, default=44, help="tokens that a turn adds")
    parser.add_argument("--models-dir", type=Path, help="where the model is converted to")
    parser.add_argument("--threads", type=int, help="all cores unless told")
    arguments = parser.parse_args()
    blas.activate(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments.models_dir or Path(scratch))
        history = tuple((1000 + 37 * n) % 40000 for n in range(arguments.history))
        prompts = [
            (*history, *((2000 + 50 * turn + 7 * n) % 40000 for n in range(arguments.new)))
            for turn in range(2 * TURNS)
        ]
        bench.turn(history)
        print("| slab | first token | restore | prefill | anything else |")
        print("|---|---|---|---|---|")
        _print_row("there", [bench.turn(prompt) for prompt in prompts[:TURNS]])
        anew = []
        for prompt in prompts[TURNS:]:
            bench.engine._rows.reset()
            anew.append(bench.turn(prompt))
        _print_row("made anew", anew)
        bench.engine.close()


def _print_row(name: str, turns: Iterable[Turn]) -> None:
    parts = ((each.first_token_s, each.restore_s, each.prefill_s, each.other_s) for each in turns)
    medians = [statistics.median(seconds) for seconds in zip(*parts, strict=True)]
    print(f"| {name} | " + " | ".join(f"{1000 * each:.1f} ms" for each in medians) + " |")


if __name__ == "__main__":
    main()
