"""Agents as they are: short, long, rapid, and some that come now and then."""

from __future__ import annotations

import re

import aiohttp
import pytest
from load.scenarios import Stage, conversations
from server_process import ServerProcess

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1800)]


async def test_five_agents_of_different_habits(stage: Stage, process: ServerProcess) -> None:
    """All are answered, mostly from the cache; afterwards nothing is leased and no row is held."""
    report = await conversations(stage)
    print(report)
    assert report.unmet == []
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{process.url}/metrics") as response,
    ):
        metrics = await response.text()
    for name in ("dovecote_pool_leased_frames", "dovecote_pool_promised_frames"):
        assert re.search(rf"^{name} 0(\.0)?$", metrics, re.MULTILINE), name
