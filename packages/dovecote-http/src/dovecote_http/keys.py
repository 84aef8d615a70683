"""The typed keys under which the application and its requests keep what handlers share."""

from __future__ import annotations

from aiohttp import web

from dovecote_http.access import Access
from dovecote_http.bridge import EngineBridge
from dovecote_http.history import History
from dovecote_http.intake import BodyRoom
from dovecote_http.metrics import HttpMetrics
from dovecote_http.pressure import PoolPressure
from dovecote_http.rate_limits import Allowance
from dovecote_http.responses.memory import ResponseMemory
from dovecote_http.running import RunningRequests
from dovecote_http.settings import HttpSettings
from dovecote_http.sse import SseStream
from dovecote_http.surveys import Surveys
from dovecote_http.swaps import ModelSwaps
from dovecote_http.tenants import Tenant

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
