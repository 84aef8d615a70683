"""What pyproject.toml cannot say: the two C modules and the wheel's tag."""

# ruff: noqa: INP001 - scripts that setuptools executes
from __future__ import annotations

import sys
import sysconfig

from setuptools import Extension, setup

# A plain shared library, loaded with ctypes and never imported: it needs no PyInit on Linux, the
# only place where it is of use (dovecote_native/blas.py).
BLAS = Extension(
    "dovecote_native._blas",
    [
        "src/blas.c",
        "src/blas_x86.c",
        "src/compute.c",
        "src/compute_avx2.c",
        "src/compute_avx512.c",
        "src/compute_portable.c",
        "src/crew.c",
    ],
    depends=["src/blas_kernels.h", "src/compute.h", "src/compute_kernel.h", "src/crew.h"],
    include_dirs=["src"],
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"],
    extra_link_args=["-pthread"],
    libraries=["dl"],
    py_limited_api=True,
)

# Free-threaded interpreters before 3.15 have no limited API; one wheel serves all others.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    ext_modules=[BLAS] if sys.platform == "linux" else [],
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
