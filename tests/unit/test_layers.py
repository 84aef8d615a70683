"""Imports between the packages go one way (docs/architecture.md, "The layer rule")."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "dovecote_native": ROOT / "native/dovecote_native",
    "dovecote_cache": ROOT / "packages/dovecote-cache/src/dovecote_cache",
    "dovecote_engine": ROOT / "packages/dovecote-engine/src/dovecote_engine",
    "dovecote_http": ROOT / "packages/dovecote-http/src/dovecote_http",
    "dovecote": ROOT / "services/dovecote/src/dovecote",
}
MAY_IMPORT = {
    "dovecote_native": set(),
    "dovecote_cache": {"dovecote_native"},
    "dovecote_engine": {"dovecote_cache"},
    "dovecote_http": {"dovecote_engine"},
    "dovecote": {"dovecote_http", "dovecote_engine", "dovecote_cache", "dovecote_native"},
}
# What would pull a layer's work into another one.
FOREIGN = {
    "dovecote_native": {"mlx", "mlx_lm", "aiohttp", "numpy"},
    "dovecote_cache": {"mlx", "mlx_lm", "aiohttp"},
    "dovecote_engine": {"aiohttp", "prometheus_client"},
    "dovecote_http": {"mlx", "mlx_lm", "numpy"},
    "dovecote": {"mlx", "mlx_lm", "aiohttp"},
}


def imported_packages(module: Path) -> set[str]:
    """Top-level names of every absolute import in a module, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", SOURCES)
def test_imports_go_one_way(package: str) -> None:
    """No module imports a package above its own, and none skips a layer but `dovecote`."""
    modules = sorted(SOURCES[package].rglob("*.py"))
    assert modules, f"{package} has no modules under {SOURCES[package]}"
    allowed = MAY_IMPORT[package] | {package}
    for module in modules:
        wrong = (imported_packages(module) & SOURCES.keys()) - allowed
        assert not wrong, f"{module.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", SOURCES)
def test_foreign_libraries_stay_in_their_layer(package: str) -> None:
    """MLX is the engine's, HTTP is the service's: no other layer imports them."""
    for module in sorted(SOURCES[package].rglob("*.py")):
        wrong = imported_packages(module) & FOREIGN[package]
        assert not wrong, f"{module.relative_to(ROOT)} imports {sorted(wrong)}"
