from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from dovecote.file_limit import file_limit_kept
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
with file_limit_kept():
    import dovecote.wiring
    assert resource.getrlimit(resource.RLIMIT_NOFILE) != (soft, hard)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
UNPRIVILEGED = """
import resource, sys
from dovecote.file_limit import file_limit_kept
before = resource.setrlimit
def without_privilege(which, limits):
    if limits[1] > resource.getrlimit(which)[1]:
        raise ValueError("not allowed to raise maximum limit")
    before(which, limits)
with file_limit_kept():
    before(resource.RLIMIT_NOFILE, (200, 400))
    resource.setrlimit = without_privilege
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def output(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("soft", (1024, 3000))
def test_importing_mlx_lm_does_not_change_the_limit(soft: int) -> None:
    """A server keeps what its environment allows it, above and below what mlx-lm sets."""
    assert output(PROGRAM, str(soft), "4096") == f"{soft} 4096"


def test_without_privileges_the_limit_comes_back_as_far_as_it_can() -> None:
    """What mlx-lm has taken off the hard limit stays gone."""
    assert output(UNPRIVILEGED) == "400 400"
