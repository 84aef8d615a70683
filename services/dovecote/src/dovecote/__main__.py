"""`python -m dovecote` is the `dovecote` command."""

from __future__ import annotations

from dovecote.cli import main

main()
