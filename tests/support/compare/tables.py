"""What the servers made of the work, side by side: Markdown, JSON and a plot in SVG."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compare.workloads import Figures

__all__ = ["as_json", "as_markdown", "as_svg"]

_BAR, _GAP, _LEFT, _WIDTH = 14, 22, 250, 760


def as_markdown(found: Sequence[Figures]) -> str:
    """One row a figure, one column a server; what failed is said below."""
    header = "| work | " + " | ".join(each.server for each in found) + " |"
    lines = [header, "|---|" + "---|" * len(found)]
    for name in _names(found):
        cells = [_cell(each.figures.get(name)) for each in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [f"\n{each.server} failed: {reason}" for each in found for reason in each.failures]
    return "\n".join(lines)


def as_json(found: Sequence[Figures], machine: str) -> str:
    """Everything, token counts included."""
    told = {"machine": machine, "servers": [asdict(each) for each in found]}
    return json.dumps(told, indent=2) + "\n"


def as_svg(found: Sequence[Figures], machine: str) -> str:
    """Bars, one group a figure, each group scaled to its own longest bar."""
    parts, top = [], 40
    for name in _names(found):
        values = {each.server: each.figures.get(name) for each in found}
        longest = max(value for value in values.values() if value is not None)
        parts.append(_text(8, top + _BAR - 4, name, "bold"))
        for at, (server, value) in enumerate(values.items()):
            y = top + (at + 1) * (_BAR + 2)
            parts.append(_text(24, y + _BAR - 3, server))
            if value is not None:
                width = max(1.0, (_WIDTH - _LEFT - 80) * value / longest)
                parts.append(_bar(y, width, "#4269d0" if at == 0 else "#9aa5b1"))
                parts.append(_text(_LEFT + width + 6, y + _BAR - 3, _cell(value)))
        top += (len(values) + 1) * (_BAR + 2) + _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" '
        f'font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{_text(8, 20, machine)}'
    )
    return "\n".join([head, *parts, "</svg>"])


def _names(found: Sequence[Figures]) -> list[str]:
    return list(dict.fromkeys(name for each in found for name in each.figures))


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _bar(y: float, width: float, color: str) -> str:
    return f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{color}"/>'


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}">{html.escape(text)}</text>'
