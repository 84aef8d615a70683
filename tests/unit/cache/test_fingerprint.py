from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dovecote_cache import FORMAT_VERSION, CodecName, DTypeName, fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = Path(__file__).parents[3] / "native" / "include" / "dovecote.h"


def make(
    weights: bytes = b"w" * 32,
    config: Mapping[str, object] | None = None,
    dtype: DTypeName = "float32",
    codec: CodecName = "exact",
    block_tokens: int = 32,
) -> bytes:
    return fingerprint(
        weights=weights,
        config={"layers": 2, "rope": {"base": 1e4, "scale": None}} if config is None else config,
        dtype=dtype,
        codec=codec,
        block_tokens=block_tokens,
    )


def test_a_fingerprint_has_32_bytes() -> None:
    """It fits the pool's header."""
    assert len(make()) == 32


def test_the_order_of_the_config_does_not_matter() -> None:
    """Two dicts that are equal have one fingerprint, nested ones too."""
    assert make(config={"rope": {"scale": None, "base": 1e4}, "layers": 2}) == make()


def test_every_ingredient_matters() -> None:
    """P8: another weight, config, dtype, codec or block length is another pool."""
    all_of_them = [
        make(),
        make(weights=b"v" * 32),
        make(config={"layers": 3}),
        make(config={"layers": 2, "rope": {"base": 1e4, "scale": 0}}),
        make(dtype="bfloat16"),
        make(codec="q8"),
        make(block_tokens=16),
    ]
    assert len(set(all_of_them)) == len(all_of_them)


def test_a_fingerprint_never_changes_by_itself() -> None:
    """The same ingredients give the same bytes in every release of one format."""
    assert make().hex() == "95083e79af31a7dd043f0a114c8b23873e4f9b9985e0c1439ad42a8a499be6b1"


def test_what_json_cannot_hold_is_refused() -> None:
    """A value without one canonical form does not get a fingerprint."""
    with pytest.raises(ValueError, match="JSON"):
        make(config={"scale": float("nan")})
    with pytest.raises(TypeError, match="JSON"):
        make(config={"path": Path("x")})


def test_the_format_version_is_that_of_the_header() -> None:
    """The fingerprint changes with the file format."""
    declared = re.search(r"DOVECOTE_FORMAT_VERSION (\d+)", HEADER.read_text())
    assert declared is not None
    assert int(declared[1]) == FORMAT_VERSION
