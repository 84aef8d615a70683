"""The page in Chromium, over a real server and the embedded model."""

from __future__ import annotations

import re
from pathlib import Path

from chat_page import ANSWER_MS, say, start_agent
from harbour_server import HarbourServer
from playwright.sync_api import Browser, Page, expect
from server_process import ServerProcess


def test_nothing_is_wider_than_the_window(page: Page) -> None:
    """The page scrolls down, never sideways."""
    expect(page.get_by_text("beryl", exact=True).first).to_be_visible()
    wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window


def test_the_map_tells_what_the_pool_holds(page: Page) -> None:
    """The legend has the frames by state, and arrow keys tell of one run after the other."""
    expect(page.locator("#legend")).to_contain_text("shared")
    label = page.locator("#map").get_attribute("aria-label") or ""
    counts = {word: int(n.replace(",", "")) for n, word in re.findall(r"(\d[\d,]*) (\w+)", label)}
    assert counts["shared"] > 0
    assert counts["own"] > 0
    page.locator("#map").focus()
    page.keyboard.press("Home")
    expect(page.locator("#map-said")).to_contain_text("shared by")
    expect(page.locator("tr.lit")).not_to_have_count(0)
    slider = page.get_by_role("slider", name="Map of the pool")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("shared by"))
    page.keyboard.press("End")
    expect(page.locator("#map-said")).to_contain_text("free")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("free"))


def test_pointing_at_the_map_tells_of_the_block(page: Page) -> None:
    """The first pigeonhole is of the run that the agents share."""
    page.locator("#map").hover(position={"x": 4, "y": 4})
    expect(page.locator("#map-said")).to_contain_text(re.compile(r"shared by \S+(, | and )"))


def test_a_chat_shows_what_was_cached_and_a_fork_goes_on_from_it(page: Page) -> None:
    """The second turn finds the first one in the pool, and so does the fork's."""
    name = f"fern{page.viewport_size['width']}" if page.viewport_size else "fern"
    start_agent(page, name)
    say(page, "Name three birds.")
    facts = page.locator(".turn.assistant .facts")
    expect(facts).to_have_count(1, timeout=ANSWER_MS)
    expect(facts.first).to_contain_text("to the first token")
    expect(page.locator("#agents-table")).to_contain_text(name)
    say(page, "And three more.")
    expect(facts).to_have_count(2, timeout=ANSWER_MS)
    assert int((facts.last.locator("b").first.text_content() or "0").replace(",", "")) > 20
    page.locator("#fork").click()
    expect(page.locator("#dialog-input")).to_have_value(f"{name}-2")
    page.keyboard.press("Enter")
    expect(page.locator("#agent")).to_have_value(f"{name}-2")
    say(page, "And their colours?")
    expect(facts).to_have_count(3, timeout=ANSWER_MS)
    page.get_by_label("Agent", exact=True).select_option(name)
    expect(facts).to_have_count(2)


def test_escape_stops_an_answer(page: Page, server: HarbourServer) -> None:
    """The request ends on the server, too; Send is back at once."""
    say(page, "Tell a very long story.", tokens=2000)
    expect(page.locator(".turn.assistant.running .text")).not_to_be_empty(timeout=ANSWER_MS)
    expect(page.locator("#send")).to_have_text("Stop")
    page.keyboard.press("Escape")
    expect(page.locator("#send")).to_have_text("Send")
    expect(page.locator(".turn .facts")).to_contain_text("stopped")
    expect(page.locator("#chart-queue .now")).to_contain_text("0running", timeout=10_000)


def test_everything_can_be_reached_by_tab(page: Page) -> None:
    """Every control gets the focus in turn, and shows it."""
    expect(page.get_by_role("button", name="Fork atlas", exact=True)).to_be_visible()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """() => { const at = document.activeElement, style = getComputedStyle(at);
            return [at.id || at.getAttribute("aria-label") || at.tagName, style.outlineStyle]; }"""
        )
        reached.add(told[0])
        if told[0] != "BODY":
            assert told[1] != "none", told
    expected = {"key", "theme", "map", "Fork atlas", "Pin beryl", "agent", "log", "message", "send"}
    assert expected <= reached


def test_the_theme_button_wins_over_the_system(page: Page) -> None:
    """Three presses lead back to the system's; what is chosen outlives a reload."""

    def brightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    before = brightness()
    page.locator("#theme").click()
    light = brightness()
    page.locator("#theme").click()
    dark = brightness()
    assert dark < 150
    assert light > 600
    page.reload()
    assert brightness() == dark
    page.locator("#theme").click()
    assert brightness() == before


def test_an_agent_is_pinned_and_deleted_from_its_row(page: Page, server: HarbourServer) -> None:
    """The row tells it; deleting asks first."""
    server.turn("gull", "Where do you nest?", tokens=1)
    page.get_by_role("button", name="Pin gull", exact=True).click()
    expect(page.locator("tr", has_text="gull")).to_contain_text("pinned")
    page.get_by_role("button", name="Delete gull", exact=True).click()
    page.keyboard.press("Escape")
    expect(page.locator("tr", has_text="gull")).to_have_count(1)
    page.get_by_role("button", name="Delete gull", exact=True).click()
    page.locator("#dialog-ok").click()
    expect(page.locator("tr", has_text="gull")).to_have_count(0)


def test_a_hidden_page_asks_for_nothing(page: Page) -> None:
    """The stream ends while nobody looks, and comes back."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    with page.expect_event("requestfailed"):
        page.evaluate(hide, True)
    assert asked == []
    with page.expect_request("**/overview/stream"):
        page.evaluate(hide, False)


def test_a_key_is_asked_for_once_and_kept_in_the_tab(
    chromium: Browser, converted_model: Path, tmp_path: Path
) -> None:
    """A wrong one is asked for again; the right one serves page and chat, after a reload too."""
    (tmp_path / "models").symlink_to(converted_model)
    options = ("--memory-only", "--pool-size", "64MiB")
    key = "a-key-of-some-length"
    with ServerProcess(tmp_path, options, {"DOVECOTE_API_KEY": key}) as process:
        page = chromium.new_page()
        page.goto(process.url)
        for given in ("a-wrong-key-of-some-length", key):
            expect(page.locator("#state")).to_have_text("a key is needed")
            expect(page.locator("#dialog-input")).to_have_attribute("type", "password")
            page.locator("#dialog-input").fill(given)
            page.keyboard.press("Enter")
        expect(page.locator("#state")).to_have_text("ready")
        page.reload()
        expect(page.locator("#state")).to_have_text("ready")
        say(page, "Hello.", tokens=2)
        expect(page.locator(".turn .facts")).to_have_count(1, timeout=ANSWER_MS)
        assert page.evaluate("localStorage.length") == 0
        page.context.close()
