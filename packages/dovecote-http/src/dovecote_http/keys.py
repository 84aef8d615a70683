"""The typed keys under which the application and its requests keep what handlers share."""

from __future__ import annotations

from aiohttp import web

from dovecote_http.access.access import Access
from dovecote_http.access.intake import BodyRoom
from dovecote_http.access.rate_limits import Allowance
from dovecote_http.access.tenants import Tenant
from dovecote_http.answers.running import RunningRequests
from dovecote_http.answers.sse import SseStream
from dovecote_http.bridge.bridge import EngineBridge
from dovecote_http.bridge.pressure import PoolPressure
from dovecote_http.bridge.surveys import Surveys
from dovecote_http.bridge.swaps import ModelSwaps
from dovecote_http.operators.history import History
from dovecote_http.operators.metrics import HttpMetrics
from dovecote_http.responses.memory import ResponseMemory
from dovecote_http.settings import HttpSettings

BRIDGE = web.AppKey("bridge", EngineBridge)
SETTINGS = web.AppKey("settings", HttpSettings)
ACCESS = web.AppKey("access", Access)
BODY_ROOM = web.AppKey("body_room", BodyRoom)
METRICS = web.AppKey("metrics", HttpMetrics)
PRESSURE = web.AppKey("pressure", PoolPressure)
RESPONSES = web.AppKey("responses", ResponseMemory)
RUNNING = web.AppKey("running", RunningRequests)
HISTORY = web.AppKey("history", History)
SURVEYS = web.AppKey("surveys", Surveys)
SWAPS = web.AppKey("swaps", ModelSwaps)

REQUEST_ID = web.RequestKey("request_id", str)
TENANT = web.RequestKey("tenant", Tenant)
"""Set before any handler runs. `api_keys.is_admin(request)` tells what it may."""
ALLOWANCE = web.RequestKey("allowance", Allowance)
"""What the caller's rate limits leave; absent where there are none."""
STREAM = web.RequestKey("stream", SseStream)
"""Set once a stream exists for the request: errors then travel inside it."""
