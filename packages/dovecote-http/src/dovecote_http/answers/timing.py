"""Response headers that tell what the cache saved and where the time went.

Does not know when they are sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        "X-Dovecote-Cache": "; ".join(_cache(started)),
    }


def _cache(started: Started) -> Iterator[str]:
    """`hit` with tokens and source, or `miss`; why that is not all of it, and from where on."""
    own, shared = started.own_tokens, started.cached_tokens - started.own_tokens
    if started.cached_tokens:
        yield f"hit; tokens={started.cached_tokens}"
        yield f"source={'own+shared' if own and shared else 'own' if own else 'shared'}"
    else:
        yield "miss"
    if own and shared:
        yield f"own={own}"
    if started.missed is not None:
        yield f"missed={started.missed}"
    if started.missed in ("diverged", "evicted"):
        yield f"at={own}"
