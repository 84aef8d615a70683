"""Chromium and a real server with a few agents, for the tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harbour_server import HarbourServer
from playwright.sync_api import Browser, Page, sync_playwright
from server_process import ServerProcess

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SHOTS = os.environ.get("DOVECOTE_SHOTS")
"""A folder to which every test's last view is written, for those who look at it."""


@pytest.fixture(scope="session")
def server(
    converted_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HarbourServer]:
    """Two agents that share a beginning."""
    folder = tmp_path_factory.mktemp("browsed")
    (folder / "models").symlink_to(converted_model)
    with ServerProcess(folder, ("--pool-size", "96MiB")) as process:
        served = HarbourServer(process.url)
        served.turn("atlas", "What is in the northern shed? " * 8)
        served.turn("beryl", "Which ships are here? " * 8)
        yield served


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=("light-1280", "dark-400"))
def page(
    request: pytest.FixtureRequest, chromium: Browser, server: HarbourServer
) -> Iterator[Page]:
    """The page, drawn once, wide and light or narrow and dark. Errors in it fail the test."""
    scheme, width = request.param.split("-")
    context = chromium.new_context(
        viewport={"width": int(width), "height": 860}, color_scheme=scheme, device_scale_factor=2
    )
    view = context.new_page()
    faults: list[str] = []
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    view.goto(server.url)
    view.wait_for_selector("#state[data-state=up]")
    yield view
    if SHOTS:
        Path(SHOTS).mkdir(exist_ok=True)
        name = f"{request.node.name.replace('[', '-').rstrip(']')}.png"
        view.screenshot(path=Path(SHOTS) / name, full_page=True)
    context.close()
    assert faults == []
