"""The C core of Dovecote through cffi: `lib` has the functions of dovecote.h, `ffi` its types.

Knows nothing of tokens' meaning, models or HTTP. Calls release the GIL; see dovecote.h for which
handle may be used from which thread.
"""

from __future__ import annotations

from dovecote_native._core import ffi, lib

__all__ = ["__version__", "error_text", "ffi", "lib"]

__version__ = "0.1.0"


def error_text(status: int) -> str:
    """Return the sentence that stands for a status code."""
    text: bytes = ffi.string(lib.dovecote_strerror(status))
    return text.decode("ascii")
