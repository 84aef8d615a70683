"""How many files and sockets this process may have open.

Importing mlx-lm sets the limit to 2,048 of at most 4,096, whatever it was. That is less than a
server of many streams may have, for good where the process has no privileges; and it is an error
where the environment allows less, as in some containers. Does not know who would change the limit.
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
    """Has `resource.setrlimit` leave the number of open files alone while the block runs.

    For the start of a process, before it has other threads.
    """
    set_limit = resource.setrlimit

    def set_others(which: int, limits: tuple[int, int], /) -> None:
        if which != resource.RLIMIT_NOFILE:
            set_limit(which, limits)

    resource.setrlimit = set_others
    try:
        yield
    finally:
        resource.setrlimit = set_limit
