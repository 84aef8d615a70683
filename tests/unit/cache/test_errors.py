from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import dovecote_cache
from dovecote_cache import CacheError, PoolIOError, errors


def raised() -> list[type[CacheError]]:
    return [getattr(errors, name) for name in errors.__all__]


def test_the_docstring_draws_every_error() -> None:
    """The tree in the docstring and the classes agree, parents included."""
    drawn = re.findall(r"^ {4}([| `-]*)(\w+)", errors.__doc__ or "", re.MULTILINE)
    parents = {name: "Closed" if len(lead) > len("|-- ") else "CacheError" for lead, name in drawn}
    parents["CacheError"] = "Exception"
    assert parents == {error.__name__: error.__bases__[0].__name__ for error in raised()}


def test_public_names_are_the_packages() -> None:
    """`__all__` lists what the package imports, no more and no less."""
    imported = {
        name
        for name, thing in vars(dovecote_cache).items()
        if not name.startswith("_") and not inspect.ismodule(thing) and name != "annotations"
    }
    assert imported == set(dovecote_cache.__all__)
    assert set(errors.__all__) <= imported


@pytest.mark.parametrize("path", (Path("/x/a.pool"), None))
def test_an_io_error_speaks_as_the_system_does(path: Path | None) -> None:
    """The message has errno, its text and the path."""
    text = str(PoolIOError(28, path))
    assert text == f"[Errno 28] No space left on device: {path or 'memory-only pool'}"
