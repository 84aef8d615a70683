"""The page's chat, as a person uses it."""

from __future__ import annotations

from playwright.sync_api import Page, expect

__all__ = ["ANSWER_MS", "say", "start_agent"]

ANSWER_MS = 60_000


def start_agent(page: Page, name: str) -> None:
    """Names a new agent in the picker."""
    page.get_by_label("Agent", exact=True).select_option(label="new agent …")
    page.get_by_label("Name", exact=True).fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("#dialog")).to_be_hidden()


def say(page: Page, text: str, tokens: int = 8) -> None:
    """Sends a message with Enter, its answer at most so long."""
    page.locator("#most").evaluate("(field, most) => { field.value = most; }", str(tokens))
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")
