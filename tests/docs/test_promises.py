"""The table of promises in docs/testing.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTING = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^\| [^|]+ \| [^|]+ \| `(tests/\S+)::(\S+)` \|$", TESTING, re.MULTILINE)


def names_in(path: Path) -> set[str]:
    """Functions of a module, and `Class.method` of its classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


def test_each_promise_has_a_row_of_its_own() -> None:
    assert len(NAMED) == len(set(NAMED)) >= 44


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_named_test_exists(path: str, name: str) -> None:
    assert name in names_in(ROOT / path)


@pytest.mark.parametrize("group", ("smoke", "e2e", "stress"))
def test_no_test_of_these_groups_is_missing_from_the_table(group: str) -> None:
    for path in (ROOT / "tests" / group).glob("test_*.py"):
        told = {name for named, name in NAMED if named == path.relative_to(ROOT).as_posix()}
        assert {name for name in names_in(path) if name.startswith("test_")} == told
