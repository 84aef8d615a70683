"""What a scenario found: figures, and what was expected of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from load.summary import Percentiles, Summary

__all__ = ["Expectation", "Report", "at_least", "at_most"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """A figure and its bound. A figure that could not be had (None) does not hold."""

    what: str
    figure: float | None
    sign: str
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound."""
        if self.figure is None:
            return False
        return self.figure <= self.bound if self.sign == "<=" else self.figure >= self.bound

    def __str__(self) -> str:
        figure = "unknown" if self.figure is None else f"{self.figure:.4g}"
        verdict = "" if self.holds else "  <- not met"
        return f"{self.what}: {figure} {self.sign} {self.bound:g}{verdict}"


def at_most(what: str, figure: float | None, bound: float) -> Expectation:
    """The figure may not exceed the bound."""
    return Expectation(what, figure, "<=", bound)


def at_least(what: str, figure: float | None, bound: float) -> Expectation:
    """The figure must reach the bound."""
    return Expectation(what, figure, ">=", bound)


@dataclass(frozen=True)
class Report:
    """One run of a scenario. `scale` 1 is the full length; `notes` say what was done."""

    scenario: str
    scale: float
    summary: Summary
    expectations: Sequence[Expectation]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def unmet(self) -> list[str]:
        """What was expected and did not hold."""
        return [str(each) for each in self.expectations if not each.holds]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "scenario": self.scenario,
            "scale": self.scale,
            "notes": list(self.notes),
            "summary": self.summary.as_json(),
            "expectations": [{**asdict(each), "holds": each.holds} for each in self.expectations],
        }

    def __str__(self) -> str:
        figures = self.summary
        counts = f"{figures.answered} of {figures.requests} answered in {figures.seconds:.1f} s"
        lines = [
            f"## {self.scenario} (scale {self.scale:g})",
            *self.notes,
            f"{counts}, {figures.tokens_per_s:.1f} tokens/s; statuses {figures.statuses}",
            f"latency {_line(figures.latency)}",
            f"first token {_line(figures.first_token)}",
            *(f"- {each}" for each in self.expectations),
        ]
        return "\n".join(lines)


def _line(percentiles: Percentiles | None) -> str:
    if percentiles is None:
        return "unknown"
    p = percentiles
    return f"p50 {p.p50:.2f} s, p95 {p.p95:.2f} s, p99 {p.p99:.2f} s, longest {p.longest:.2f} s"
