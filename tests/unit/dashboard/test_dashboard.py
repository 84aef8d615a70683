from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from dashboard import __main__ as command
from dashboard.figures import change, shown
from dashboard.page import as_page
from dashboard.runs import Benchmark, Run, keep, merged, read_asv, read_kept
from dashboard.tables import as_tables
from dashboard.texts import told_by

MACHINE = {"machine": "box", "cpu": "a cpu", "num_cpu": "2", "os": "Linux", "ram": "8589934592"}
STEP = "batching.Step.track_milliseconds_a_token"
FOUR = "machine.Machine.track_load"


def run_of(commit: str, day: int, ms: float, load: float = 0.5) -> Run:
    benchmarks = {
        STEP: Benchmark("ms", ("agents",), {("1",): 2 * ms, ("3",): ms}),
        FOUR: Benchmark("a processor", (), {(): load}),
    }
    date = f"2026-01-{day:02}T00:00:00Z"
    return Run(commit * 5, date, date, "", MACHINE, benchmarks)


@pytest.fixture
def asv_folder(tmp_path: Path) -> Path:
    """What asv leaves, cut down to one benchmark with a choice that was skipped."""
    place = tmp_path / "asv/box"
    place.mkdir(parents=True)
    told = {STEP: {"unit": "ms", "param_names": ["agents"]}, "version": 2}
    (tmp_path / "asv/benchmarks.json").write_text(json.dumps(told), encoding="utf-8")
    machine = {**MACHINE, "arch": "x86_64", "os": "Linux 6.18.44", "version": 1}
    (place / "machine.json").write_text(json.dumps(machine), encoding="utf-8")
    raw = {
        "commit_hash": "a" * 40,
        "date": 1767225600000,
        "params": {"python": "/a/path/python"},
        "result_columns": ["result", "params", "version", "started_at"],
        "results": {STEP: [[20.0, float("nan"), 5], [["1", "3", "5"]], "v", 1767225600000]},
    }
    (place / "aaaaaaaa-existing.json").write_text(json.dumps(raw), encoding="utf-8")
    return tmp_path / "asv"


def test_asv_results_become_a_run(asv_folder: Path) -> None:
    """Skipped choices are absent, and no path of the machine is taken over."""
    (run,) = read_asv(asv_folder)
    assert run.benchmarks[STEP].values == {("1",): 20.0, ("5",): 5.0}
    assert (run.python, run.machine["os"]) == ("", "Linux")
    assert run.committed == "2026-01-01T00:00:00Z"


def test_a_kept_run_reads_back_equal(tmp_path: Path) -> None:
    run = run_of("abcdefgh", 1, 10.5)
    assert keep(run, tmp_path).relative_to(tmp_path) == Path("box/abcdefgh.json")
    assert read_kept(tmp_path) == [run]


def test_what_was_measured_later_wins() -> None:
    """One run for each commit of a machine, in the order of the commits."""
    one, two = run_of("11111111", 2, 10.0), run_of("22222222", 1, 20.0)
    again = run_of("11111111", 2, 30.0)
    later = Run(one.commit, one.committed, "2026-02-01T00:00:00Z", "", MACHINE, again.benchmarks)
    runs = merged([later, one, two])
    assert [run.name for run in runs] == ["22222222", "11111111"]
    assert runs[1].benchmarks[STEP].values["3",] == 30.0


class Parts(HTMLParser):
    """Counts tags, and gathers what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]


def test_the_page_loads_nothing() -> None:
    """It has one chart a benchmark, no script, and links into itself only."""
    page = as_page([run_of("abcdefgh", 1, 10.0), run_of("12345678", 2, 5.0)], {})
    parts = Parts()
    parts.feed(page)
    assert parts.tags.count("svg") == 2
    assert "script" not in parts.tags
    assert all(each.startswith("#") for each in parts.loads)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_tells_the_change() -> None:
    """Less is better, and small changes have no colour."""
    page = as_page([run_of("abcdefgh", 1, 10.0), run_of("12345678", 2, 5.0)], {})
    assert re.search(r'<td class="better">\S* -50.0%</td>', page)
    page = as_page([run_of("abcdefgh", 1, 10.0), run_of("12345678", 2, 10.1)], {})
    assert '<td class=""> +1.0%</td>' in page


def test_marks_of_a_busy_machine_are_hollow() -> None:
    quiet, busy = run_of("abcdefgh", 1, 10.0), run_of("12345678", 2, 5.0, load=1.5)
    assert "class=busy" not in as_page([quiet], {})
    assert as_page([quiet, busy], {}).count("class=busy") == 3


def test_a_page_without_results_says_how_to_get_some() -> None:
    assert "nox -s bench" in as_page([], {})


def test_tables_tell_throughput() -> None:
    """Three agents at half of one agent's time a token are twice the throughput."""
    assert "| 3 | 10.0 | 100.0 | 2.00 |" in as_tables(run_of("abcdefgh", 1, 10.0))


def test_numbers_have_units_that_suit_them() -> None:
    assert shown(0.00123, "seconds") == "1.23 ms"
    assert shown(3 * 2**20, "bytes") == "3 MiB"
    assert shown(1234.5, "ms") == "1.23 s"
    assert shown(1234.5, "ms a GiB") == "1,234 ms a GiB"
    assert shown(0, "") == "0"
    assert change(3.0, 2.0) == 0.5
    assert change(3.0, None) is None


def test_docstrings_say_what_is_measured() -> None:
    told = told_by(command.ROOT / "tests/benchmarks")
    assert told["batching"].startswith("Many rows in one step")
    assert told["batching.Batching.track_three_agents"] == "Promised: at most 1 / 1.7 = 0.588."


def test_results_of_changed_code_are_not_kept(
    asv_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be told of a commit that has other code."""
    answers = {"rev-parse": "a" * 40, "status": " M native/src/pool.c"}
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "_git", lambda *arguments: answers[arguments[0]])
    where = ["--results", str(asv_folder), "--kept", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["dashboard", "keep", *where])
    with pytest.raises(SystemExit, match="1 changed files"):
        command.main()
    answers["status"] = ""
    command.main()
    assert [run.commit for run in read_kept(tmp_path / "kept")] == ["a" * 40]
