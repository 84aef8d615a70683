"""How many files and sockets this process may have open.

Importing mlx-lm sets the limit to 2,048 of at most 4,096, whatever it was. A server of many streams
has use for what its environment allows. Does not know who changes the limit.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["file_limit_kept"]


@contextmanager
def file_limit_kept() -> Iterator[None]:
    """Give the process its limit back at the end of the block, as far as the system allows.

    A lowered hard limit can be raised by a privileged process alone: others get up to that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (ValueError, OSError):
            lowered = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            wanted = lowered if soft == resource.RLIM_INFINITY else min(soft, lowered)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, lowered))
