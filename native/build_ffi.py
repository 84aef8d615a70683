"""Builds dovecote_native._core: cffi API mode, out of line, limited API.

The declarations are the marked section of include/dovecote.h, so that the compiler itself compares
them with the header. setuptools executes this file (setup.py, cffi_modules); it is not imported.
"""

# ruff: noqa: INP001 - scripts that setuptools executes
from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
BEGIN, END = "/* cdef-begin", "/* cdef-end"
# What computes, and stands in for a BLAS, is a library of its own (setup.py).
SEPARATE = ("blas", "compute", "crew")


def declarations(header: str) -> str:
    """Return the marked section of the header without its comments."""
    marked = header[header.index(BEGIN) : header.index(END)]
    return re.sub(r"/\*.*?\*/", "", marked, flags=re.DOTALL)


def sources() -> list[str]:
    """Return the core's sources, relative to this folder as setuptools wants them."""
    names = (path.name for path in ROOT.glob("src/*.c"))
    return sorted(f"src/{name}" for name in names if not name.startswith(SEPARATE))


def debug_build() -> bool:
    """Tell whether C asserts stay in (DOVECOTE_DEBUG=1); CPython's own flags take them out."""
    return os.environ.get("DOVECOTE_DEBUG", "") == "1"


# Fused multiply-add would give a decoded value another last bit than the portable definition.
COMPILE_ARGS = [] if sys.platform == "win32" else ["-std=c11", "-O3", "-ffp-contract=off"]

ffibuilder = FFI()
ffibuilder.cdef(declarations((ROOT / "include" / "dovecote.h").read_text(encoding="utf-8")))
ffibuilder.set_source(
    "dovecote_native._core",
    '#include "dovecote.h"',
    sources=sources(),
    include_dirs=["include", "src"],
    depends=sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/*.h")),
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=COMPILE_ARGS,
    extra_link_args=["-pthread"],
    undef_macros=["NDEBUG"] if debug_build() else [],
)
