"""Runs of the suite: one commit on one machine, read from asv's results or from those kept.

asv's own files name the interpreter's path and hold every sample; what is kept is a value for each
benchmark and its parameters, and what is needed to judge it. Does not know how it is shown.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["Benchmark", "Run", "keep", "merged", "read_asv", "read_kept"]

Parameters = tuple[str, ...]
LOAD = "machine.Machine.track_load"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A value for each choice of the parameters; () if there are none. Less is better."""

    unit: str
    parameter_names: tuple[str, ...]
    values: Mapping[Parameters, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One commit on one machine. Times are in ISO 8601, UTC."""

    commit: str
    committed: str
    measured: str
    python: str
    machine: Mapping[str, str]
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The commit as people write it."""
        return self.commit[:8]

    @property
    def load(self) -> float | None:
        """Processes a processor that wanted to run; None if it was not measured."""
        found = self.benchmarks.get(LOAD)
        return next(iter(found.values.values()), None) if found else None

    @property
    def is_busy(self) -> bool:
        """Whether the benchmark had to share its processors."""
        return self.load is not None and self.load > 1


def read_asv(folder: Path) -> list[Run]:
    """What `asv run` left in its results folder; nothing if there is none."""
    index = folder / "benchmarks.json"
    if not index.exists():
        return []
    told = json.loads(index.read_text(encoding="utf-8"))
    found: list[Run] = []
    for place in sorted(folder.glob("*/machine.json")):
        machine = json.loads(place.read_text(encoding="utf-8"))
        paths = sorted(place.parent.glob("*-*.json"))
        raw = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        found += [_asv_run(each, machine, told) for each in raw]
    return found


def _asv_run(raw: dict[str, Any], machine: dict[str, Any], told: dict[str, Any]) -> Run:
    columns = raw["result_columns"]
    benchmarks, begun = {}, [0]
    for name, row in raw["results"].items():
        fields = dict(zip(columns, row, strict=False))
        if name in told and (benchmark := _asv_benchmark(fields, told[name])).values:
            benchmarks[name] = benchmark
            begun.append(fields.get("started_at") or 0)
    about = {key: str(machine[key]) for key in ("machine", "cpu", "num_cpu", "os", "ram")}
    about["os"] = about["os"].split()[0]
    python = str(raw["params"].get("python", "")) if "params" in raw else ""
    python = python if python.replace(".", "").isdigit() else ""
    return Run(raw["commit_hash"], _iso(raw["date"]), _iso(max(begun)), python, about, benchmarks)


def _asv_benchmark(fields: dict[str, Any], told: dict[str, Any]) -> Benchmark:
    """Results come in the order of the parameters' product; None and NaN are none."""
    names = tuple(told["param_names"])
    choices = product(*(fields.get("params") or []))
    pairs = zip(choices, fields["result"] or [], strict=False)
    values = {
        tuple(part.strip("'") for part in choice): float(value)
        for choice, value in pairs
        if isinstance(value, int | float) and not math.isnan(value)
    }
    return Benchmark(told["unit"], names, values)


def _iso(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_kept(folder: Path) -> list[Run]:
    """The runs that were kept there."""
    paths = sorted(folder.glob("*/*.json"))
    return [_from_json(json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def keep(run: Run, folder: Path) -> Path:
    """Writes the run under its machine's name, in place of an earlier one of its commit."""
    path = folder / run.machine["machine"] / f"{run.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_as_json(run), indent=1) + "\n", encoding="utf-8")
    return path


def _as_json(run: Run) -> dict[str, Any]:
    benchmarks = {
        name: {
            "unit": each.unit,
            "parameter_names": list(each.parameter_names),
            "values": [[*choice, float(f"{v:.5g}")] for choice, v in each.values.items()],
        }
        for name, each in sorted(run.benchmarks.items())
    }
    return {
        "commit": run.commit,
        "committed": run.committed,
        "measured": run.measured,
        "python": run.python,
        "machine": dict(run.machine),
        "benchmarks": benchmarks,
    }


def _from_json(raw: dict[str, Any]) -> Run:
    benchmarks = {
        name: Benchmark(
            each["unit"],
            tuple(each["parameter_names"]),
            {tuple(choice): float(value) for *choice, value in each["values"]},
        )
        for name, each in raw.pop("benchmarks").items()
    }
    return Run(**raw, benchmarks=benchmarks)


def merged(runs: Iterable[Run]) -> list[Run]:
    """One run for each machine and commit, by the commits' dates; what is measured later wins."""
    by_place: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_place[run.machine["machine"], run.commit].append(run)
    joined = []
    for some in by_place.values():
        some.sort(key=lambda run: run.measured)
        benchmarks = {name: each for run in some for name, each in run.benchmarks.items()}
        last = some[-1]
        joined.append(
            Run(last.commit, last.committed, last.measured, last.python, last.machine, benchmarks)
        )
    return sorted(joined, key=lambda run: (run.machine["machine"], run.committed))
