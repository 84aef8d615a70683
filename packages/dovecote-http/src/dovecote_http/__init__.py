"""The OpenAI-compatible HTTP service in front of one Dovecote engine.

Does not know models, MLX or the pool: it sees the engine's request and event types only.
"""

from __future__ import annotations

from dovecote_http.app import make_app
from dovecote_http.bridge import EngineBridge, EngineStopped, EventStream
from dovecote_http.engine_like import EngineLike
from dovecote_http.errors import ApiError
from dovecote_http.logs import log_json_lines
from dovecote_http.server import serve
from dovecote_http.settings import HttpSettings

__all__ = [
    "ApiError",
    "EngineBridge",
    "EngineLike",
    "EngineStopped",
    "EventStream",
    "HttpSettings",
    "log_json_lines",
    "make_app",
    "serve",
]
