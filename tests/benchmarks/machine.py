"""How busy the machine was, and how fast its memory: what every other figure stands on."""

from __future__ import annotations

import os
import statistics

import numpy as np

from .engines import seconds_of


class Machine:
    """Nothing of the project's own."""

    SIZE = 256 << 20

    def track_load(self) -> float:
        """Processes that wanted to run, over one minute, a processor. Above 1 they waited."""
        return os.getloadavg()[0] / (os.cpu_count() or 1)

    track_load.unit = "a processor"  # type: ignore[attr-defined]

    def track_memcpy(self) -> float:
        """Milliseconds to copy 256 MiB from memory to memory."""
        source, target = np.ones(self.SIZE, np.uint8), np.zeros(self.SIZE, np.uint8)
        return 1e3 * statistics.median(
            seconds_of(lambda: np.copyto(target, source)) for _ in range(9)
        )

    track_memcpy.unit = "ms"  # type: ignore[attr-defined]
