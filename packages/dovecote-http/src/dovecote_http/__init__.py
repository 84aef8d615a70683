"""The OpenAI-compatible HTTP service in front of one Dovecote engine.

Does not know models, MLX or the pool: it sees the engine's request and event types only.
"""

from __future__ import annotations

from dovecote_http.access.access import Access
from dovecote_http.access.api_keys import ApiKey, BadKeys, KeyRing, parse_keys
from dovecote_http.access.rate_limits import RateLimits
from dovecote_http.app import make_app
from dovecote_http.bridge.bridge import EngineBridge, EngineStopped, EventStream
from dovecote_http.bridge.engine_like import EngineLike
from dovecote_http.bridge.swaps import ModelChoice
from dovecote_http.errors import ApiError
from dovecote_http.operators.logs import log_json_lines
from dovecote_http.server import serve
from dovecote_http.settings import HttpSettings

__all__ = [
    "Access",
    "ApiError",
    "ApiKey",
    "BadKeys",
    "EngineBridge",
    "EngineLike",
    "EngineStopped",
    "EventStream",
    "HttpSettings",
    "KeyRing",
    "ModelChoice",
    "RateLimits",
    "log_json_lines",
    "make_app",
    "parse_keys",
    "serve",
]
