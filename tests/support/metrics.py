"""What a running server's /metrics says."""

from __future__ import annotations

import urllib.request

__all__ = ["metrics"]


def metrics(url: str) -> dict[str, float]:
    """Every sample by its name with its labels, as in `dovecote_pool_misses_total{reason="io"}`."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}
