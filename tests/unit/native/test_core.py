from __future__ import annotations

from importlib.metadata import version

import pytest

import dovecote_native
from dovecote_native import error_text, ffi, lib


def test_the_module_is_built_for_the_limited_api() -> None:
    """One wheel serves every later Python."""
    from dovecote_native import _core

    assert ".abi3." in str(_core.__file__)


def test_constants_come_from_the_header() -> None:
    """The enum values of dovecote.h are attributes of lib."""
    assert (lib.DOVECOTE_OK, lib.DOVECOTE_ERR_BROKEN) == (0, -8)
    assert lib.DOVECOTE_CODEC_Q4 == 4


def test_a_call_answers() -> None:
    """CRC-32C of the customary check string has its known value."""
    assert lib.dovecote_crc32c(0, b"123456789", 9) == 0xE3069283


def test_exports_agree() -> None:
    """Every name in __all__ exists."""
    assert all(hasattr(dovecote_native, name) for name in dovecote_native.__all__)


def test_the_version_is_the_distributions() -> None:
    """__version__ and the installed metadata say the same."""
    assert dovecote_native.__version__ == version("dovecote-native")


@pytest.mark.parametrize("status", range(-8, 1))
def test_every_status_has_a_sentence(status: int) -> None:
    """No documented status is unknown."""
    assert error_text(status) != error_text(-99)


def test_a_forced_instruction_set_can_be_undone() -> None:
    """Override takes "portable" anywhere, refuses what it does not know, and NULL restores."""
    best = ffi.string(lib.dovecote_cpu_name())
    assert lib.dovecote_cpu_override(b"portable") == lib.DOVECOTE_OK
    assert ffi.string(lib.dovecote_cpu_name()) == b"portable"
    assert lib.dovecote_cpu_override(b"abacus") == lib.DOVECOTE_ERR_ARGUMENT
    assert lib.dovecote_cpu_override(ffi.NULL) == lib.DOVECOTE_OK
    assert ffi.string(lib.dovecote_cpu_name()) == best
