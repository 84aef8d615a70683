from __future__ import annotations

import inspect
import math
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[2]
MODULES = ("batching", "codec", "index", "machine", "memory", "pool", "resume", "serving")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The suite over small shapes, where asv would run it: in a folder that goes away."""
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.chdir(tmp_path)
    for name in [each for each in sys.modules if each.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    engines = import_module("benchmarks.engines")
    monkeypatch.setattr(engines, "SMOL_MODEL", engines.SMALL_MODEL)
    for module, name in (("codec", "SMOL"), ("pool", "SMOL"), ("pool", "LLAMA")):
        loaded = import_module(f"benchmarks.{module}")
        monkeypatch.setattr(loaded, name, engines.SMALL_MODEL.kv)
    monkeypatch.setattr(import_module("benchmarks.index"), "FRAMES", 8192)
    monkeypatch.setattr(import_module("benchmarks.machine").Machine, "SIZE", 1 << 20)
    monkeypatch.setattr(import_module("benchmarks.serving"), "TOKENS", 64)
    return engines


def cases() -> list[tuple[str, str, str]]:
    """Every benchmark, as the source has it."""
    sys.path.insert(0, str(TESTS))
    try:
        found = []
        for module in MODULES:
            loaded = import_module(f"benchmarks.{module}")
            for kind, made in inspect.getmembers(loaded, inspect.isclass):
                methods = [name for name in dir(made) if name.startswith(("time_", "track_"))]
                if made.__module__ == loaded.__name__:
                    found += [(module, kind, method) for method in methods]
        return found
    finally:
        sys.path.remove(str(TESTS))


@pytest.mark.parametrize(("module", "kind", "method"), cases())
def test_a_benchmark_runs_at_this_commit(small: Any, module: str, kind: str, method: str) -> None:
    """None of them is skipped here, as it would be at a commit without what it measures."""
    made = getattr(import_module(f"benchmarks.{module}"), kind)
    choice = first_choice(made)
    benchmark = made()
    if hasattr(benchmark, "setup"):
        benchmark.setup(*choice)
    try:
        result = getattr(benchmark, method)(*choice)
    finally:
        if hasattr(benchmark, "teardown"):
            benchmark.teardown(*choice)
    if method.startswith("track_"):
        assert math.isfinite(result)
        assert getattr(getattr(made, method), "unit", getattr(made, "unit", ""))


def test_the_readme_has_every_class() -> None:
    """In the row of its file, and no class that there is not."""
    there = {(f"{module}.py", kind) for module, kind, _ in cases()}
    told, file = set(), ""
    readme = (TESTS / "benchmarks/README.md").read_text(encoding="utf-8")
    for name, classes in re.findall(
        r"^\| (?:`(\w+\.py)`)? *\| .* \| (.*) \|$", readme, re.MULTILINE
    ):
        file = name or file
        told |= {(file, kind) for kind in re.findall(r"`(\w+)`", classes)}
    assert told == there


def first_choice(made: type[Any]) -> list[Any]:
    """Of one parameter or of several."""
    params = getattr(made, "params", ())
    if isinstance(params, tuple) and isinstance(next(iter(params), None), list | tuple):
        return [each[0] for each in params]
    return list(params[:1])


def test_frames_take_what_theory_says(small: Any) -> None:
    """Within one per cent, with every codec; the disk has what the pool counts."""
    theory = import_module("benchmarks.memory").Theory
    for codec in theory.params:
        benchmark = theory()
        benchmark.setup(codec)
        assert benchmark.track_frames_against_theory(codec) == pytest.approx(1, rel=0.01)
        assert benchmark.track_disk_against_count(codec) == pytest.approx(1, rel=0.01)
        benchmark.teardown(codec)


def test_a_commit_without_a_part_skips(small: Any) -> None:
    """What raises NotImplementedError in its setup is left out by asv."""
    pool = small.pool_of(small.SMALL_MODEL, 8)
    with pytest.raises(NotImplementedError):
        small.engine_of(small.SMALL_MODEL, pool, an_option_of_another_commit=1)
