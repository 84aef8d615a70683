"""Gives memory that was freed back to the system.

glibc keeps what is freed below 32 MiB a piece for the next allocation, and a slab consists of such
pieces: of 180 MiB that six rows of SmolLM2-135M had freed, not one page went back by itself, and
217 MiB did by `malloc_trim`.

Does not know what the memory was for.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["trim"]


def trim() -> None:
    """Gives back every whole page that is free, where the C library has a call for that.

    Takes some milliseconds for each hundred MiB; any thread.
    """
    if sys.platform != "linux":
        return
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
    if malloc_trim is not None:
        malloc_trim(0)
