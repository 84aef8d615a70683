"""One benchmark over the commits, as SVG: a line for each choice of its parameters.

The axis begins at zero, so that a line that looks twice as high is. Runs on a busy machine have
hollow marks. Colours come from the page's style, so that they follow light and dark.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard.figures import scaled, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Line", "Mark", "as_svg"]

_WIDTH, _HEIGHT = 420, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 10, 10, 22
_MOST_LABELS = 6


@dataclass(frozen=True, slots=True)
class Mark:
    """A value at the commit of that place among the run's commits."""

    place: int
    value: float
    is_busy: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One choice of the parameters."""

    name: str
    marks: Sequence[Mark]


def as_svg(lines: Sequence[Line], commits: Sequence[str], unit: str, title: str) -> str:
    """The chart; every mark tells its value when pointed at."""
    top = _round_top(max(mark.value for line in lines for mark in line.marks))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        *_grid(top, unit),
        *_commits(commits),
    ]
    for at, line in enumerate(lines):
        parts.append(_line(at, line, commits, top, unit))
    return "".join([*parts, "</svg>"])


def _line(at: int, line: Line, commits: Sequence[str], top: float, unit: str) -> str:
    points = [(_x(mark.place, len(commits)), _y(mark.value, top), mark) for mark in line.marks]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"{" class=busy" if mark.is_busy else ""}>'
        f"<title>{html.escape(_told(line, mark, commits, unit))}</title></circle>"
        for x, y, mark in points
    )
    return f'<g class="line c{at % 10}"><polyline points="{path}"/>{marks}</g>'


def _told(line: Line, mark: Mark, commits: Sequence[str], unit: str) -> str:
    busy = ", machine busy" if mark.is_busy else ""
    return f"{line.name} {commits[mark.place]}: {shown(mark.value, unit)}{busy}".strip()


def _grid(top: float, unit: str) -> list[str]:
    found = []
    for part in (0, 0.5, 1):
        y, told = _y(top * part, top), html.escape(_tick(top * part, unit))
        found.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        found.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{told}</text>')
    return found


def _tick(value: float, unit: str) -> str:
    """Units that are words stand above the chart."""
    return shown(value, scaled(unit)) if value else "0"


def _commits(commits: Sequence[str]) -> list[str]:
    step = math.ceil(len(commits) / _MOST_LABELS)
    return [
        f'<text x="{_x(at, len(commits)):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{name}</text>'
        for at, name in enumerate(commits)
        if (len(commits) - 1 - at) % step == 0
    ]


def _x(place: int, count: int) -> float:
    width = _WIDTH - _LEFT - _RIGHT - 48
    return _LEFT + 24 + (width * place / (count - 1) if count > 1 else width / 2)


def _y(value: float, top: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top, 1)


def _round_top(highest: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= highest)
