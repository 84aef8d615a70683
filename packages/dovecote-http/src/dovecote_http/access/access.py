"""Who may ask, from which pages, under which names of this server, and how often: one value.

Does not know where it was configured, nor requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dovecote_http.access.rate_limits import RateLimits

if TYPE_CHECKING:
    from dovecote_http.access.api_keys import KeyRing

__all__ = ["Access"]


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server. By default everybody who reaches it is its operator."""

    keys: KeyRing | None = None
    """None: no key is asked for, and any is taken."""

    shares_prefixes: bool = False
    """Whether tenants find what others have cached under equal prefixes."""

    limits: RateLimits = field(default_factory=RateLimits)

    origins: frozenset[str] = frozenset()
    """Origins of the web pages that may read answers; "*" stands for all."""

    hosts: frozenset[str] | None = None
    """Names under which a client may call this server, beside addresses and localhost. None: any.
    A page that had its own name resolve to this machine would otherwise pass for one of ours."""
