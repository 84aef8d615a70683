"""The typed keys under which the application and its requests keep what handlers share."""

from __future__ import annotations

from aiohttp import web

from dovecote_http.bridge import EngineBridge
from dovecote_http.metrics import HttpMetrics
from dovecote_http.pressure import PoolPressure
from dovecote_http.running import RunningRequests
from dovecote_http.settings import HttpSettings
from dovecote_http.sse import SseStream

BRIDGE = web.AppKey("bridge", EngineBridge)
SETTINGS = web.AppKey("settings", HttpSettings)
METRICS = web.AppKey("metrics", HttpMetrics)
PRESSURE = web.AppKey("pressure", PoolPressure)
RUNNING = web.AppKey("running", RunningRequests)

REQUEST_ID = web.RequestKey("request_id", str)
STREAM = web.RequestKey("stream", SseStream)
"""Set once a stream exists for the request: errors then travel inside it."""
