from __future__ import annotations

import json
import sys
from xml.etree import ElementTree as ET

from compare.__main__ import QUICK, measured
from compare.servers import Launched
from compare.tables import as_json, as_markdown, as_svg
from compare.workloads import Figures
from load.records import RequestResult, Usage

OURS = Figures("ours", {"cold, s": 1.5, "restart, s": 0.25})
THEIRS = Figures("<theirs>", {"cold, s": 30.0}, failures=["batch: 500: no"])


def test_a_row_is_a_figure_and_a_column_a_server() -> None:
    assert as_markdown([OURS, THEIRS]).splitlines() == [
        "| work | ours | <theirs> |",
        "|---|---|---|",
        "| cold, s | 1.50 | 30 |",
        "| restart, s | 0.25 | - |",
        "",
        "<theirs> failed: batch: 500: no",
    ]


def test_the_plot_has_a_bar_for_each_figure() -> None:
    """Well-formed, with names escaped; a figure that a server does not have has no bar."""
    root = ET.fromstring(as_svg([OURS, THEIRS], "a machine & its load"))  # noqa: S314
    bars = [
        float(each.get("width", "0"))
        for each in root.iter("{http://www.w3.org/2000/svg}rect")
        if each.get("width") != "100%"
    ]
    assert len(bars) == 3
    assert max(bars) / min(bars) > 10
    assert "<theirs>" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_everything_is_in_the_json() -> None:
    body = json.loads(as_json([OURS, THEIRS], "here"))
    assert body["machine"] == "here"
    assert [each["figures"] for each in body["servers"]] == [OURS.figures, THEIRS.figures]


def test_an_answer_that_did_not_come_whole_is_a_failure_and_no_figure() -> None:
    """A status, a broken stream and missing token counts are all told."""
    found = Figures("ours")
    good = RequestResult("a", 0.0, 1.0, 200, usage=Usage(3, 2, None))
    assert found.note("fine", [good])
    assert found.failures == []
    assert not found.note("bad", [RequestResult("a", 0.0, 1.0, 500, error="500: no")])
    assert not found.note("mute", [RequestResult("a", 0.0, 1.0, 200)])
    assert found.failures == ["bad: 500: no", "mute: no tokens counted"]
    assert found.tokens["fine"] == [{"prompt": 3, "completion": 2, "cached": None}]


def test_a_server_that_does_not_start_is_a_failure_of_its_own() -> None:
    """What the others made of the work is not lost to it."""
    found = measured(
        Launched("theirs", [sys.executable, "-c", "raise SystemExit(3)"], "any"), QUICK
    )
    assert (found.server, found.figures) == ("theirs", {})
    assert found.failures[0].startswith("theirs did not start")
