"""Writes docs/performance.md and docs/production.md from the data in the repository.

    python -m reports [--check]

Exit code 1 if --check finds a page that is not what the data make of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.data import read_data
from reports.performance import performance
from reports.production import production

ROOT = Path(__file__).resolve().parents[3]


def pages(root: Path) -> dict[Path, str]:
    """The pages as they should be."""
    data = read_data(root)
    return {
        root / "docs/performance.md": performance(data),
        root / "docs/production.md": production(data),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m reports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_check = parser.parse_args().check
    for path, text in pages(ROOT).items():
        if is_check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.exit(f"{path} is not what the data make of it: run `nox -s report`")
        if not is_check:
            path.write_text(text, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
