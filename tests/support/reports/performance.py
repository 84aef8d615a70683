"""`docs/performance.md`: what was measured, where, at which commit, and by which command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dashboard.figures import shown
from dashboard.runs import LOAD
from dashboard.tables import as_sections

from reports.data import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dashboard.runs import Run

    from reports.data import Data

__all__ = ["performance"]

_HEAD = """\
# Performance

This page is generated: `nox -s report` makes it from the files in [data](data) and in
`tests/benchmarks/results`, and a test holds it to them. Each section says on which machine, at
which commit and by which command its figures came about. A load above 1 a processor means that
other work wanted the same processors: believe the ratios there, not the times. How the figures
carry over to a machine of yours is the matter of [production.md](production.md)."""
_NOT_YET = "Not measured yet."


def performance(data: Data) -> str:
    """The page."""
    sections = (
        ("Over HTTP", "nox -s figures -- --json docs/data/figures.json", _figures(data.figures)),
        ("Beside other servers", "nox -s compare -- --out docs/data", _compare(data.compare)),
        (
            "Under load",
            "nox -s load -- SCENARIO --url URL --json docs/data/stress.json",
            _stress(data),
        ),
        ("Benchmarks", "nox -s bench, nox -s bench_publish -- --keep", _benchmarks(data)),
    )
    parts = [
        f"## {title}\n\n{_commands(how)}\n\n{text or _NOT_YET}" for title, how, text in sections
    ]
    return "\n\n".join([_HEAD, *parts]) + "\n"


def _commands(how: str) -> str:
    return "By " + ", then ".join(f"`{each}`" for each in how.split(", ")) + "."


def _figures(figures: Mapping[str, Any] | None) -> str:
    """The README's tables with their machine."""
    if figures is None:
        return ""
    parts = [figures[name] for name in ("table", "scaling", "steps") if figures.get(name)]
    return "\n\n".join([f"{figures['machine']}.", *parts])


def _compare(compare: Mapping[str, Any] | None) -> str:
    """A row a workload, a column a server."""
    if compare is None:
        return ""
    servers = compare["servers"]
    names = list(dict.fromkeys(name for each in servers for name in each["figures"]))
    rows = [[name, *(_number(each["figures"].get(name)) for each in servers)] for name in names]
    failed = [f"{each['server']}: {why}" for each in servers for why in each["failures"]]
    head = ["work", *(each["server"] for each in servers)]
    return "\n\n".join([f"{compare['machine']}.", table(head, rows), *failed])


def _number(value: float | None) -> str:
    return "-" if value is None else shown(value, "")


def _stress(data: Data) -> str:
    """What each scenario found, and whether what was expected held."""
    if data.stress is None:
        return ""
    rows = []
    for report in data.stress["reports"]:
        summary = report["summary"]
        held = sum(each["holds"] for each in report["expectations"])
        latency = summary["latency"] or {"p50": float("nan"), "p95": float("nan")}
        rows.append(
            [
                f"{report['scenario']} (scale {report['scale']:g})",
                f"{summary['answered']} of {summary['requests']}",
                f"{summary['tokens_per_s']:.1f}",
                f"{latency['p50']:.2f} s",
                f"{latency['p95']:.2f} s",
                str(summary["codes_5xx"]),
                f"{held} of {len(report['expectations'])}",
            ]
        )
    head = ("scenario", "answered", "tokens/s", "p50", "p95", "5xx", "expectations that held")
    return "\n\n".join(
        [f"{data.stress['machine']}; `{data.stress['command']}`.", table(head, rows)]
    )


def _benchmarks(data: Data) -> str:
    """The tables of the newest run of each machine, and the commits there are."""
    newest = {run.machine["machine"]: run for run in data.runs}
    parts = [_run(run) for run in newest.values()]
    kept = [
        [
            f"`{run.name}`",
            run.committed[:16].replace("T", " "),
            str(len(run.benchmarks)),
            "unknown" if run.load is None else shown(run.load, ""),
        ]
        for run in data.runs
    ]
    if kept:
        head = ("commit", "of (UTC)", "benchmarks", "load a processor")
        parts.append(f"### Commits\n\n{table(head, kept)}")
    return "\n\n".join(parts)


def _run(run: Run) -> str:
    """One machine's newest run."""
    about = run.machine
    memory = shown(float(about["ram"]), "bytes")
    where = f"{about['cpu']}, {about['num_cpu']} processors, {memory}, {about['os']}"
    load = "" if LOAD not in run.benchmarks else f", load {shown(run.load or 0.0, '')} a processor"
    sections = as_sections(run)
    costs = _costs(run)
    return "\n\n".join([f"{where}; commit `{run.name}`{load}.", *sections, *costs])


def _costs(run: Run) -> list[str]:
    """What storing takes, against a copy of the same float32 in memory."""
    names = {
        "encode": "codec.Codec.track_encode",
        "decode": "codec.Codec.track_decode",
        "seal": "pool.SealCost.track_memcpy_times",
        "restore": "pool.RestoreCost.track_memcpy_times",
    }
    found = {what: run.benchmarks[name] for what, name in names.items() if name in run.benchmarks}
    codecs = list(dict.fromkeys(choice[0] for each in found.values() for choice in each.values))
    rows = [
        [f"`{codec}`", *(_number(each.values.get((codec,))) for each in found.values())]
        for codec in codecs
    ]
    if not rows:
        return []
    return [f"### Codecs, times a memcpy of the float32\n\n{table(['codec', *found], rows)}"]
