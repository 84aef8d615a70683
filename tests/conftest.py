"""What holds for every test: the BLAS library is in place before anything imports MLX."""

from __future__ import annotations

from dovecote_native import blas

blas.activate()
