"""What the tests share: BLAS in place before anything imports MLX, and real servers.

A server is a process of its own on a loopback port, with the embedded model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import ServerProcess

from dovecote_native import blas

blas.activate()


@pytest.fixture(scope="session")
def converted_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory in which the embedded model has been converted, to be shared by link."""
    cache_dir = tmp_path_factory.mktemp("converted")
    with ServerProcess(cache_dir, ("--memory-only", "--pool-size", "64MiB")):
        pass
    return cache_dir / "models"


@pytest.fixture
def cache_dir(converted_model: Path, tmp_path: Path) -> Path:
    """A fresh cache directory with the model in place and no pool."""
    path = tmp_path / "cache"
    path.mkdir()
    (path / "models").symlink_to(converted_model)
    return path


@pytest.fixture(scope="session")
def server(converted_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that many tests share; none of them may kill it.

    Its codec is `exact`: a prompt that another test has left in the pool changes no answer.
    """
    path = tmp_path_factory.mktemp("shared")
    (path / "models").symlink_to(converted_model)
    with ServerProcess(path, ("--pool-size", "512MiB", "--codec", "exact")) as process:
        yield process.url
