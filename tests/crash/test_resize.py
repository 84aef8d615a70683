"""SIGKILL at every step of a resize, as Python takes them; native/tests has every system call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_kill_at_any_step_of_a_resize_loses_nothing(tmp_path: Path) -> None:
    """The next opening finds every block and its values, and cleans up (P7)."""
    script = Path(__file__).with_name("resize_and_die.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
