"""Agents as they are: short, long, rapid, and some that come now and then."""

from __future__ import annotations

from typing import Any

import pytest
from load.scenarios import conversations
from metrics import metrics
from server_process import ServerProcess

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1800)]

IDLE = {
    "dovecote_running_rows": 0,
    "dovecote_queue_depth": 0,
    "dovecote_pool_leased_frames": 0,
    "dovecote_pool_promised_frames": 0,
}


def test_five_agents_of_different_habits(play: Any, process: ServerProcess) -> None:
    """All are answered, mostly from the cache; afterwards nothing is leased and no row is held."""
    report = play(conversations)
    assert report.unmet == []
    assert report.summary.latency is not None
    assert report.summary.latency.p95 > 0
    found = metrics(process.url)
    assert {name: found[name] for name in IDLE} == IDLE
