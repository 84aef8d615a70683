"""What each benchmark measures, in the words of its own docstrings. Imports none of them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Told", "told_by"]

Told = dict[str, str]


def told_by(folder: Path) -> Told:
    """The docstrings of modules, classes and methods, by `module`, `module.Class` and so on."""
    found: Told = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        _note(found, path.stem, tree)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                _note(found, f"{path.stem}.{node.name}", node)
                for method in node.body:
                    if isinstance(method, ast.FunctionDef):
                        _note(found, f"{path.stem}.{node.name}.{method.name}", method)
    return found


def _note(found: Told, name: str, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> None:
    """The first paragraph, in one line."""
    first = (ast.get_docstring(node) or "").split("\n\n")[0]
    found[name] = " ".join(first.split())
