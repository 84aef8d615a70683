"""Keeps and shows what the asv suite found.

    python -m dashboard table        the latest run as tables of text
    python -m dashboard publish      one HTML page of all runs, those in asv's folder included
    python -m dashboard keep         copies asv's runs to those that the repository keeps

Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from dashboard.page import as_page
from dashboard.runs import keep, merged, read_asv, read_kept
from dashboard.tables import as_tables
from dashboard.texts import told_by

ROOT = Path(__file__).resolve().parents[3]
# What a benchmark runs: changes elsewhere do not make a result another commit's.
MEASURED = ("native", "packages", "tests/benchmarks/*.py")


def main() -> None:
    """The command."""
    arguments = _parser().parse_args()
    runs = merged([*read_kept(arguments.kept), *read_asv(arguments.results)])
    if arguments.command == "table":
        latest = max(runs, key=lambda run: run.measured, default=None)
        print(as_tables(latest) if latest else "There are no results yet: run `nox -s bench`.")
    elif arguments.command == "publish":
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        text = as_page(runs, told_by(ROOT / "tests/benchmarks"))
        arguments.out.write_text(text, encoding="utf-8")
        print(arguments.out)
    else:
        _keep(arguments)


def _keep(arguments: argparse.Namespace) -> None:
    """Adds asv's runs to the kept ones of their commits.

    Exits with 1 if this tree's own results have one of the commit that is checked out, and the tree
    has changes that the commit has not: the figures would be told of code that it does not have.
    """
    fresh = read_asv(arguments.results)
    changed = _git("status", "--porcelain", "--", *MEASURED).splitlines()
    is_own = arguments.results.resolve().is_relative_to(ROOT)
    if changed and is_own and any(run.commit == _git("rev-parse", "HEAD") for run in fresh):
        told = f"{len(changed)} changed files that are not committed, such as {changed[0][3:]}"
        sys.exit(f"not kept: there are {told}. Commit and measure again.")
    places = {(run.machine["machine"], run.commit) for run in fresh}
    for run in merged([*read_kept(arguments.kept), *fresh]):
        if (run.machine["machine"], run.commit) in places:
            print(keep(run, arguments.kept))


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("table", "publish", "keep"))
    parser.add_argument("--results", type=Path, default=ROOT / ".asv/results", help="asv's folder")
    parser.add_argument(
        "--kept", type=Path, default=ROOT / "tests/benchmarks/results", help="what is kept"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/benchmarks.html", help="the page")
    return parser


if __name__ == "__main__":
    main()
