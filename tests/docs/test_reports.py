from __future__ import annotations

import json
from pathlib import Path

import pytest
from dashboard.figures import shown
from load.records import RequestResult, Usage
from load.report import Report, at_least, at_most
from load.summary import summarise
from reports.__main__ import ROOT, pages
from reports.data import Data, read_data
from reports.performance import performance
from reports.production import production


@pytest.mark.parametrize("path", pages(ROOT), ids=lambda path: path.name)
def test_a_generated_page_is_what_the_data_make_of_it(path: Path) -> None:
    """`nox -s report` would change nothing."""
    assert path.read_text(encoding="utf-8") == pages(ROOT)[path]


@pytest.mark.parametrize(
    ("row", "figure", "unit"),
    (
        ("first token of an agent's next turn", "first token, next turns, s", "seconds"),
        (
            "the same after SIGKILL and restart",
            "first token, after SIGKILL and restart, s",
            "seconds",
        ),
        ("eight agents at once", "8 at once, tokens/s", "tokens/s"),
    ),
)
def test_the_readme_shows_what_was_compared(row: str, figure: str, unit: str) -> None:
    """The three rows that matter most, of the servers in the order of the data."""
    compare = read_data(ROOT).compare
    assert compare is not None
    names = [server["server"] for server in compare["servers"]]
    assert names == ["dovecote", "mlx_lm.server with OpenBLAS", "mlx_lm.server"]
    cells = [shown(server["figures"][figure], unit) for server in compare["servers"]]
    assert f"| {row} | {' | '.join(cells)} |\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_pages_without_data_say_so() -> None:
    """What was not measured is not made up."""
    assert performance(Data()).count("Not measured yet.") == 4
    assert production(Data()).count("Not measured yet.") == 4


def stress(scale: float, late: float | None) -> Data:
    """As `nox -s load -- --json` writes it: a minute of requests, each a second long."""
    results = [RequestResult("a", n, n + 1.0, status=200, usage=Usage(9, 6, 4)) for n in range(60)]
    refused = RequestResult("a", 60.0, 61.0, status=429, error="429")
    expected = [at_least("answered", 60, 61), at_most("late p95 over early p95", late, 1.2)]
    report = Report("hour", scale, summarise([*results, refused]), expected, ("an idle machine",))
    written = {"machine": "a machine", "command": "nox -s load", "reports": [report.as_json()]}
    return Data(stress=json.loads(json.dumps(written)))


def test_a_scenario_is_shown_with_its_figures() -> None:
    """What it was run for, with its bound, and not only whether it held."""
    text = performance(stress(1, 1.0567))
    assert "| hour | 61 s | 60 of 61 | 1 | 0 | 0 |" in text
    assert "| hour: late p95 over early p95 | 1.06 | at most 1.2 | yes |" in text
    assert "- hour: an idle machine" in text


def test_what_did_not_hold_is_shown_as_such() -> None:
    """Counts among it; a figure that could not be had does not hold either."""
    text = performance(stress(0.1, None))
    assert "| hour, at 0.1 of its length: answered | 60 | at least 61 | **no** |" in text
    assert "late p95 over early p95 | unknown | at most 1.2 | **no** |" in text
