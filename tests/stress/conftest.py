"""A server and a load client on it; how long the full lengths are here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from conversation import MODEL
from load.client import LoadClient
from load.report import Report
from load.scenarios import Stage
from server_process import ServerProcess

Scenario = Callable[[Stage], Awaitable[Report]]

SCALE = float(os.environ.get("DOVECOTE_TIME_SCALE", str(1 / 120)))
"""Of the full lengths: 1 runs the hour as an hour."""

NORMAL_P95_S = float(os.environ.get("DOVECOTE_NORMAL_P95_S", "2" if SCALE == 1 else "10"))
"""What a request may take at normal load; looser where other tests share the machine."""


@pytest.fixture(scope="module")
def process(
    converted_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    path = tmp_path_factory.mktemp("stress")
    (path / "models").symlink_to(converted_model)
    options = ("--pool-size", "256MiB", "--codec", "exact", "--keepalive", "2")
    with ServerProcess(path, options) as server:
        yield server


@pytest.fixture(scope="module")
def play(process: ServerProcess) -> Callable[[Scenario], Report]:
    """Plays a scenario on the server, whose memory is watched, and prints the report."""

    async def on_stage(scenario: Scenario) -> Report:
        async with LoadClient(process.url, MODEL) as client:
            return await scenario(Stage(client, process.pid, SCALE, NORMAL_P95_S))

    def played(scenario: Scenario) -> Report:
        report = asyncio.run(on_stage(scenario))
        print(report)
        return report

    return played
