from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from dovecote.file_limit import file_limit_kept
soft, hard = map(int, sys.argv[1:])
set_limits = resource.setrlimit
set_limits(resource.RLIMIT_NOFILE, (soft, hard))
def without_privilege(which, wanted):
    if which == resource.RLIMIT_NOFILE and wanted[1] > hard:
        raise ValueError("not allowed to raise maximum limit")
    set_limits(which, wanted)
resource.setrlimit = without_privilege
with file_limit_kept():
    import dovecote.wiring
    assert "mlx_lm.utils" in sys.modules
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
assert resource.setrlimit is without_privilege
print(*resource.getrlimit(resource.RLIMIT_NOFILE), *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.parametrize(("soft", "hard"), ((1024, 1024), (1024, 4096), (3000, 3500)))
def test_importing_mlx_lm_does_not_change_the_limit(soft: int, hard: int) -> None:
    """A server keeps what its environment allows it, above and below what mlx-lm would set, and
    starts where that may not be set at all; other limits can be set meanwhile.
    """
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(soft), str(hard), "0", "0"]
