"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["change", "scaled", "shown"]

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_IN_SECONDS = {"seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def scaled(unit: str) -> str:
    """The unit if numbers are shown in what suits their size: times and bytes; else nothing."""
    return unit if unit in _IN_SECONDS or unit == "bytes" else ""


def shown(value: float, unit: str) -> str:
    """Three significant digits with the unit; times and bytes in what suits their size."""
    if unit in _IN_SECONDS:
        return _scaled(value * _IN_SECONDS[unit], _TIMES, "s")
    if unit == "bytes":
        return _scaled(value, _BYTES, "bytes")
    return f"{_digits(value)} {unit}".rstrip()


def _scaled(value: float, steps: tuple[tuple[float, str], ...], plain: str) -> str:
    for size, name in steps:
        if abs(value) >= size:
            return f"{_digits(value / size)} {name}"
    return f"{_digits(value)} {plain}"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def change(value: float, before: float | None) -> float | None:
    """By how much of the earlier value it grew; None if there is none to compare with."""
    return (value - before) / before if before else None
