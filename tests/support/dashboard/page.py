"""The dashboard: one HTML page with everything in it, styles and charts included.

It loads nothing from anywhere and runs no script, so it opens from a disk, without a net.
"""

from __future__ import annotations

import html
import re
from itertools import groupby
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from dashboard.chart import Line, Mark, as_svg
from dashboard.figures import change, scaled, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboard.runs import Parameters, Run
    from dashboard.texts import Told

__all__ = ["as_page"]

_TEMPLATE = Path(__file__).with_name("page.html")
# Less does not show on a machine that does other things too.
_NOTABLE = 0.05
_ESCAPED = html.escape


def as_page(runs: Sequence[Run], told: Told) -> str:
    """The page of these runs, which are in the order of their commits."""
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    machines = [
        _machine(list(some), told)
        for _, some in groupby(runs, key=lambda run: run.machine["machine"])
    ]
    body = "".join(machines) or "<p>There are no results yet: run <code>nox -s bench</code>.</p>"
    return template.substitute(body=body)


def _machine(runs: list[Run], told: Told) -> str:
    about = runs[-1].machine
    memory = f"{int(about['ram']) / 2**30:.0f} GiB" if about["ram"].isdigit() else about["ram"]
    where = f"{about['cpu']}, {about['num_cpu']} processors, {memory}, {about['os']}"
    names = sorted({name for run in runs for name in run.benchmarks})
    by_module = groupby(names, key=lambda name: name.split(".")[0])
    groups = [(key, list(some)) for key, some in by_module]
    links = "".join(f'<a href="#{_ESCAPED(key)}">{_ESCAPED(key)}</a>' for key, _ in groups)
    sections = "".join(_group(key, some, runs, told) for key, some in groups)
    return (
        f"<h2>{_ESCAPED(about['machine'])}: {_ESCAPED(where)}</h2>{_commits(runs)}"
        f"<nav>{links}</nav>{sections}"
    )


def _commits(runs: list[Run]) -> str:
    rows = "".join(
        f"<tr><td><code>{run.name}</code></td><td>{run.committed[:16].replace('T', ' ')}</td>"
        f"<td>{run.measured[:16].replace('T', ' ')}</td><td>{len(run.benchmarks)}</td>"
        f"<td>{_load(run)}</td></tr>"
        for run in reversed(runs)
    )
    head = "<th>commit</th><th>of (UTC)</th><th>measured (UTC)</th><th>benchmarks</th><th>load</th>"
    return f'<table class="commits"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _load(run: Run) -> str:
    if run.load is None:
        return "unknown"
    return f"{run.load:.2f} a processor{', busy' if run.is_busy else ''}"


def _group(key: str, names: list[str], runs: list[Run], told: Told) -> str:
    cards = "".join(_card(name, runs, told) for name in names)
    text = _prose(told.get(key, ""))
    return f'<section id="{_ESCAPED(key)}"><h3>{_ESCAPED(key)}</h3><p>{text}</p>{cards}</section>'


def _card(name: str, runs: list[Run], told: Told) -> str:
    title = name.split(".", 1)[1]
    unit = next(run.benchmarks[name].unit for run in reversed(runs) if name in run.benchmarks)
    lines = _lines(name, runs)
    commits = [run.name for run in runs]
    texts = (told.get(name.rsplit(".", 1)[0], ""), told.get(name, ""))
    text = " ".join(_prose(text) for text in texts if text)
    chart = as_svg(lines, commits, unit, title)
    return (
        f'<article><h4>{_ESCAPED(title)} <span class="unit">{_ESCAPED(_unit(unit))}</span></h4>'
        f"<p>{text}</p>{chart}{_latest(lines, unit)}</article>"
    )


def _prose(text: str) -> str:
    """A docstring's text, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _ESCAPED(text))


def _unit(unit: str) -> str:
    return "time" if scaled(unit) and unit != "bytes" else unit


def _lines(name: str, runs: list[Run]) -> list[Line]:
    """A line for each choice of the parameters that the newest run with the benchmark knows."""
    newest = next(run.benchmarks[name] for run in reversed(runs) if name in run.benchmarks)
    return [Line(", ".join(choice), _marks(name, choice, runs)) for choice in newest.values]


def _marks(name: str, choice: Parameters, runs: list[Run]) -> list[Mark]:
    found = []
    for place, run in enumerate(runs):
        benchmark = run.benchmarks.get(name)
        if benchmark is not None and choice in benchmark.values:
            found.append(Mark(place, benchmark.values[choice], run.is_busy))
    return found


def _latest(lines: list[Line], unit: str) -> str:
    rows = "".join(_row(at, line, unit) for at, line in enumerate(lines))
    head = "<th></th><th>latest</th><th>before</th><th>change</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(at: int, line: Line, unit: str) -> str:
    value = line.marks[-1].value
    before = line.marks[-2].value if len(line.marks) > 1 else None
    bare = scaled(unit)
    name = f'<span class="swatch c{at % 10}"></span>{_ESCAPED(line.name)}'
    earlier = shown(before, bare) if before is not None else ""
    cells = f"<td>{name}</td><td>{shown(value, bare)}</td><td>{earlier}</td>"
    return f"<tr>{cells}{_change(change(value, before))}</tr>"


def _change(part: float | None) -> str:
    if part is None:
        return "<td></td>"
    kind = "" if abs(part) < _NOTABLE else ("worse" if part > 0 else "better")
    sign = {"worse": "&#9650;", "better": "&#9660;"}.get(kind, "")
    return f'<td class="{kind}">{sign} {part:+.1%}</td>'
