"""`docs/performance.md`: what was measured, where, at which commit, and by which command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dashboard.figures import shown
from dashboard.runs import LOAD
from dashboard.tables import as_sections

from reports.data import table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
_EXPLAINED = """\
Statuses count every attempt, the refused ones too; latency is from the first attempt to the last
token. What was expected beside whole answers:"""
_SCENARIO = (
    *("scenario", "lasted", "answered", "429", "5xx", "lost", "tokens/s"),
    *("first token, p95", "latency, p50", "p95", "longest", "held"),
)
_EXPECTED = ("figure", "found", "expected", "held")
_COSTS = {
    "encode": "codec.Codec.track_encode",
    "decode": "codec.Codec.track_decode",
    "seal": "pool.SealCost.track_memcpy_times",
    "restore": "pool.RestoreCost.track_memcpy_times",
}
_BANDWIDTHS = {
    "encode": "codec.Codec.track_encode_bandwidth",
    "decode": "codec.Codec.track_decode_bandwidth",
}
# Expectations that a scenario's own row shows.
_COUNTED = ("answered", "answered without a token", "lost", "5xx")


def performance(data: Data) -> str:
    """The page."""
    sections = (
        ("Over HTTP", "nox -s figures -- --json docs/data/figures.json", _figures(data.figures)),
        ("Beside other servers", "nox -s compare -- --out docs/data", _compare(data)),
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


def _compare(data: Data) -> str:
    """A row a workload, a column a server; the plot where it lies beside the data."""
    compare = data.compare
    if compare is None:
        return ""
    servers = compare["servers"]
    names = list(dict.fromkeys(name for each in servers for name in each["figures"]))
    rows = [[name, *(_number(each["figures"].get(name)) for each in servers)] for name in names]
    failed = [f"{each['server']}: {why}" for each in servers for why in each["failures"]]
    head = ["work", *(each["server"] for each in servers)]
    sizes = _prompts(servers[0]["tokens"])
    plot = ["![The same as bars](data/compare.svg)"] if data.has_compare_plot else []
    return "\n\n".join([f"{compare['machine']}.", table(head, rows), *failed, sizes, *plot])


def _prompts(tokens: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How long the prompts and answers of each workload were."""
    told = []
    for workload, counts in tokens.items():
        prompts = [each["prompt"] for each in counts if each]
        if prompts:
            sizes = " to ".join(str(each) for each in sorted({min(prompts), max(prompts)}))
            most = max(each["completion"] for each in counts if each)
            told.append(f"{workload} {sizes} (answers of {most})")
    return f"Tokens of the prompts: {', '.join(told)}."


def _number(value: float | None) -> str:
    return "-" if value is None else shown(value, "")


def _stress(data: Data) -> str:
    """What each scenario was answered, and the figures for which it was run."""
    if data.stress is None:
        return ""
    reports = data.stress["reports"]
    parts = [
        f"{data.stress['machine']}; `{data.stress['command']}`.",
        table(_SCENARIO, [_scenario(each) for each in reports]),
        _EXPLAINED,
        table(_EXPECTED, [row for each in reports for row in _expected(each)]),
        "\n".join(f"- {each['scenario']}: {note}" for each in reports for note in each["notes"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _scenario(report: Mapping[str, Any]) -> list[str]:
    """`held`: how many of the expectations did, those of whole answers included."""
    summary, expected = report["summary"], report["expectations"]
    latency, first = summary["latency"] or {}, summary["first_token"] or {}
    return [
        _name(report),
        _lasted(summary["seconds"]),
        f"{summary['answered']:,} of {summary['requests']:,}",
        *(str(summary["statuses"].get("429", 0)), str(summary["codes_5xx"])),
        *(str(summary["lost"]), shown(summary["tokens_per_s"], "")),
        *(_seconds(each) for each in (first.get("p95"), latency.get("p50"), latency.get("p95"))),
        _seconds(latency.get("longest")),
        f"{sum(each['holds'] for each in expected)} of {len(expected)}",
    ]


def _expected(report: Mapping[str, Any]) -> list[list[str]]:
    """A row for each figure; one that is counted above only if it does not hold."""
    return [
        [
            f"{_name(report)}: {each['what']}",
            "unknown" if each["figure"] is None else shown(float(each["figure"]), ""),
            f"at {'most' if each['sign'] == '<=' else 'least'} {shown(float(each['bound']), '')}",
            "yes" if each["holds"] else "**no**",
        ]
        for each in report["expectations"]
        if each["what"] not in _COUNTED or not each["holds"]
    ]


def _name(report: Mapping[str, Any]) -> str:
    """With the scale of one that was not run in full."""
    scale = report["scale"]
    return str(report["scenario"]) + (f", at {scale:g} of its length" if scale != 1 else "")


def _lasted(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


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
    """What storing takes: against a copy of the same float32 in memory, and as bandwidth."""
    return [
        f"### {title}\n\n{found}"
        for title, names, told in (
            ("Codecs, times a memcpy of the float32", _COSTS, _number),
            ("Codecs, GiB/s of float32 on one processor", _BANDWIDTHS, _per_second),
        )
        if (found := _by_codec(run, names, told))
    ]


def _by_codec(run: Run, names: Mapping[str, str], told: Callable[[float | None], str]) -> str:
    """A row a codec, a column a benchmark; empty if there are none."""
    found = {what: run.benchmarks[name] for what, name in names.items() if name in run.benchmarks}
    codecs = list(dict.fromkeys(choice[0] for each in found.values() for choice in each.values))
    rows = [
        [f"`{codec}`", *(told(each.values.get((codec,))) for each in found.values())]
        for codec in codecs
    ]
    return table(["codec", *found], rows) if rows else ""


def _per_second(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else shown(1000 / milliseconds, "")
