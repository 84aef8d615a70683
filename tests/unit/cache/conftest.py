from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from slabs import Slab, open_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dovecote_cache import Pool


@pytest.fixture
def pool_path(tmp_path: Path) -> Path:
    return tmp_path / "a.pool"


@pytest.fixture
def pool(pool_path: Path) -> Iterator[Pool]:
    """Eight frames in a file; its invariants are verified when the test is over."""
    with open_pool(pool_path) as pool:
        yield pool
        pool.check()


@pytest.fixture
def slab() -> Slab:
    return Slab()
