"""Everything measured that lies in the repository, and the latest value of each benchmark."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dashboard.runs import merged, read_kept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dashboard.runs import Benchmark, Run

__all__ = ["Data", "read_data", "table"]


@dataclass(frozen=True, slots=True)
class Data:
    """What there is; a file that is not there is None."""

    runs: Sequence[Run] = ()
    figures: dict[str, Any] | None = None
    compare: dict[str, Any] | None = None
    has_compare_plot: bool = False
    stress: dict[str, Any] | None = None

    def latest(self, name: str) -> tuple[Run, Benchmark] | None:
        """The benchmark at the newest commit that has it."""
        having = [run for run in self.runs if name in run.benchmarks]
        newest = max(having, key=lambda run: run.committed, default=None)
        return (newest, newest.benchmarks[name]) if newest else None

    def values(self, name: str) -> Mapping[str, float]:
        """The latest values by the first parameter; none if it was not measured."""
        found = self.latest(name)
        return {choice[0]: value for choice, value in found[1].values.items()} if found else {}


def read_data(root: Path) -> Data:
    """What lies under `docs/data` and `tests/benchmarks/results`."""
    folder = root / "docs/data"
    return Data(
        merged(read_kept(root / "tests/benchmarks/results")),
        _json(folder / "figures.json"),
        _json(folder / "compare.json"),
        (folder / "compare.svg").exists(),
        _json(folder / "stress.json"),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; what is not in the first column is set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
