"""How many examples a property test tries: `nox -s property` asks for more than the default run."""

from __future__ import annotations

import os

_TIMES = int(os.environ.get("DOVECOTE_EXAMPLES", "1"))


def examples(count: int) -> int:
    """`count` in the default run, a multiple of it where DOVECOTE_EXAMPLES says so."""
    return count * _TIMES
