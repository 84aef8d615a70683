"""What a pool was made with, as 32 bytes (P8).

Two servers that would compute different K and V for the same ids must not share a pool. The
tokenizer and the chat template are left out: keys are over token ids.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dovecote_cache.geometry import CodecName, DTypeName

__all__ = ["FORMAT_VERSION", "fingerprint"]

# DOVECOTE_FORMAT_VERSION of dovecote.h: a pool file of another version is never opened.
FORMAT_VERSION: Final = 1


def fingerprint(
    *,
    weights: bytes,
    config: Mapping[str, object],
    dtype: DTypeName,
    codec: CodecName,
    block_tokens: int,
) -> bytes:
    """SHA-256 over the canonical JSON of everything that K and V depend on.

    `weights` is `digest_weights` of the model's files, `config` its config as read from JSON; the
    order of its keys does not matter. Raises: TypeError or ValueError if it holds what JSON cannot.
    """
    ingredients = {
        "weights": weights.hex(),
        "config": config,
        "dtype": dtype,
        "codec": codec,
        "block_tokens": block_tokens,
        "format": FORMAT_VERSION,
    }
    canonical = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(canonical.encode("ascii")).digest()
