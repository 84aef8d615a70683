"""Response headers that tell what the cache saved and where the time went.

Does not know when they are sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dovecote_engine.request import Started


def started_headers(started: Started) -> dict[str, str]:
    """`Server-Timing` (milliseconds) and `X-Dovecote-Cache`."""
    timing = started.timing
    spans = (
        ("queue", timing.queue_s),
        ("restore", timing.restore_s),
        ("prefill", timing.prefill_s),
    )
    return {
        "Server-Timing": ", ".join(f"{name};dur={span_s * 1000:.1f}" for name, span_s in spans),
        "X-Dovecote-Cache": _cache(started.cached_tokens),
    }


def _cache(cached_tokens: int) -> str:
    return f"hit; tokens={cached_tokens}" if cached_tokens else "miss"
