"""Long work shows on a terminal how far it is, and nothing anywhere else."""

from __future__ import annotations

import io
import sys

import pytest
from terminal import opened

from dovecote.client_options import transfer_bar
from dovecote.wiring import _conversion_bar


def test_a_transfer_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export or import: what it is, and the bytes of all bytes."""
    terminal = opened(monkeypatch)
    with transfer_bar("exporting anna") as show:
        show(500, 2000)
        show(2000, 2000)
    assert "exporting anna" in terminal.getvalue()
    assert "2.0/2.0" in terminal.getvalue()


def test_a_conversion_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a .gguf file, at its first start; a model that is there shows no bar."""
    terminal = opened(monkeypatch)
    with _conversion_bar() as show:
        assert show is not None
    assert "converting" not in terminal.getvalue()
    with _conversion_bar() as show:
        assert show is not None
        show(1, 4)
    assert "converting the model" in terminal.getvalue()


def test_a_log_has_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no terminal gets not a byte."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with transfer_bar("exporting anna") as show:
        show(2000, 2000)
    with _conversion_bar() as told:
        assert told is None
    assert log.getvalue() == ""
