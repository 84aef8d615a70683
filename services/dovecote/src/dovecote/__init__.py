"""The server: command line, configuration and the wiring of the parts into one process."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
