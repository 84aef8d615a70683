"""Where something was measured: model, processor, system, commit, and how busy the machine was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

__all__ = ["machine"]

_CPUINFO = Path("/proc/cpuinfo")


def machine(model: str) -> str:
    """One line for beneath a table."""
    info = _CPUINFO.read_text(encoding="utf-8") if _CPUINFO.exists() else ""
    found = re.search(r"model name\s*: (.*)", info)
    name = found.group(1) if found else platform.machine()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    where = f"{name}, {os.cpu_count()} cores, {platform.system()}"
    return f"{model}, {where}, load {load}, commit {commit or 'unknown'}"
