"""Settings and public names."""

from __future__ import annotations

from dataclasses import fields

import pytest

import dovecote_http
from dovecote_http import HttpSettings

LIMITS = [field.name for field in fields(HttpSettings) if field.name != "model_aliases"]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", (0, -1, float("nan")))
def test_a_limit_that_is_not_positive_is_refused(name: str, value: float) -> None:
    """The error names the field. Not to wait for running requests at all is a drain, too."""
    if (name, value) == ("drain_s", 0):
        assert HttpSettings(drain_s=0).drain_s == 0
        return
    with pytest.raises(ValueError, match=name):
        HttpSettings(**{name: value})  # type: ignore[arg-type]


def test_the_public_names_are_there() -> None:
    """`__all__` tells what the package gives, sorted."""
    assert sorted(dovecote_http.__all__) == dovecote_http.__all__
    assert all(hasattr(dovecote_http, name) for name in dovecote_http.__all__)
