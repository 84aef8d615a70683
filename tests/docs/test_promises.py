"""docs/testing.md names every group and session of the tests, and a test for each promise."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTING = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^\| .* \| `(tests/\S+)::(\S+)` \|$", TESTING, re.MULTILINE)
PROMISES = re.findall(
    r"^\| (\d+) \| (\w+(?: \w+)?) \| [^|]+ \| `(tests/\w+)/\S+` \|$", TESTING, re.MULTILINE
)
GROUPS = {
    ("smoke", "tests/smoke"): 7,
    ("sessions", "tests/e2e"): 4,
    ("persistence", "tests/e2e"): 4,
    ("hot swap", "tests/e2e"): 4,
    ("exhaustion", "tests/stress"): 4,
    ("agents", "tests/stress"): 4,
    ("sustained", "tests/stress"): 4,
    ("realistic", "tests/stress"): 1,
    ("batching", "tests/benchmarks"): 4,
    ("resume", "tests/benchmarks"): 4,
    ("memory", "tests/benchmarks"): 4,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_in(path: Path) -> dict[str, Function]:
    """Functions of a module by name, and `Class.method` of its classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, Function] = {}
    for node in tree.body:
        if isinstance(node, Function):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, Function))
            found |= {f"{node.name}.{method.name}": method for method in methods}
    return found


def test_each_of_the_forty_four_has_a_row_and_a_test_of_its_own() -> None:
    """Numbered from 1 on, so many of each group, where the tests of that group lie."""
    assert [int(number) for number, _, _ in PROMISES] == list(range(1, 45))
    assert Counter((group, folder) for _, group, folder in PROMISES) == GROUPS
    assert len(NAMED) == len(set(NAMED)) > 44


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_named_test_exists_and_can_fail(path: str, name: str) -> None:
    """It asserts something, and no decorator leaves it out. Benchmarks assert nothing."""
    function = functions_in(ROOT / path)[name]
    if not path.startswith("tests/benchmarks/"):
        assert any(isinstance(node, ast.Assert) for node in ast.walk(function))
        assert not any("skip" in ast.unparse(each) for each in function.decorator_list)
        assert not any("xfail" in ast.unparse(each) for each in function.decorator_list)


@pytest.mark.parametrize("group", ("smoke", "e2e", "stress"))
def test_no_test_of_these_groups_is_missing_from_the_table(group: str) -> None:
    for path in (ROOT / "tests" / group).glob("test_*.py"):
        told = {name for named, name in NAMED if named == path.relative_to(ROOT).as_posix()}
        assert {name for name in functions_in(path) if name.startswith("test_")} == told


def test_every_group_says_how_it_is_run() -> None:
    """Each folder of the tests has its row, and each nox session is named."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("[!_]*.*"))}
    assert {name for name in folders if f"`tests/{name}`" not in TESTING} == set()
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = re.findall(r"^@nox\.session.*\n(?:@.*\n)*def (\w+)", noxfile, re.MULTILINE)
    assert [name for name in sessions if not re.search(rf"[`\s]{name}[`(\s]", TESTING)] == []
