from __future__ import annotations

import subprocess
import sys

import pytest

import dovecote_engine


def test_every_public_name_is_there() -> None:
    """`__all__` and the names that the package has agree."""
    assert sorted(dovecote_engine.__all__) == dovecote_engine.__all__
    for name in dovecote_engine.__all__:
        assert getattr(dovecote_engine, name) is not None
    assert set(dovecote_engine._MODULE_OF) < set(dovecote_engine.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Names that come late fail as others do."""
    with pytest.raises(AttributeError):
        dovecote_engine.nothing  # noqa: B018 - the access is the test


def test_the_requests_are_there_without_mlx() -> None:
    """Who puts a BLAS behind MLX, or only submits requests, does not load MLX by the import."""
    code = (
        "import sys, dovecote_engine as engine\n"
        "engine.Request('r', (1,)), engine.EngineOptions(), engine.Overloaded('', 1)\n"
        "sys.exit('mlx.core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
