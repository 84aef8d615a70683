from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dovecote_native.blas import activate, mlx_needs_shim

CASES = Path(__file__).with_name("blas_cases.py")
NAMES = (
    "mlx_agrees_with_numpy",
    "kernels_agree_with_numpy",
    "rows_change_no_bit",
    "beta_zero_does_not_read",
    "threads_share_the_crew",
    "a_forked_child_starts_anew",
    "activation_is_idempotent",
    "activation_after_mlx_is_reported",
    "activation_without_openblas_is_reported",
)

needs_shim = pytest.mark.skipif(
    not mlx_needs_shim() or find_spec("scipy_openblas32") is None,
    reason="MLX brings a fast BLAS here, or OpenBLAS is not installed",
)


@needs_shim
@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    """Each case of blas_cases.py holds in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(CASES), name], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.endswith("ok\n"), done.stderr


def test_every_case_is_run() -> None:
    """NAMES lists the cases that blas_cases.py defines."""
    source = CASES.read_text(encoding="utf-8")
    assert all(f"def {name}() -> None:" in source for name in NAMES)
    assert source.count("() -> None:") == len(NAMES) + 1  # and one inner function


@pytest.mark.skipif(mlx_needs_shim(), reason="tells what happens elsewhere")
def test_where_mlx_needs_no_shim_it_is_inactive() -> None:
    """The report is inactive and gives the reason."""
    assert not activate().active
