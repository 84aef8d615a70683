"""What axe-core finds on the page, and what those hear of it who cannot see it."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from chat_page import ANSWER_MS, say, start_agent
from playwright.sync_api import Page, expect

AXE = Axe()
TOLD = {"resultTypes": ["violations", "incomplete", "passes"]}

LANDMARKS = """
- link "Skip to the chat"
- banner:
  - heading "Dovecote" [level=1]
  - status: ready
  - button "Key"
  - 'button "Theme: system"'
- main:
  - region "Pool":
    - heading "Pool" [level=2]
    - slider /Map of the pool, in blocks. \\d+ leased, \\d+ shared, \\d+ own/
    - list "Blocks by state"
  - region "The last five minutes":
    - figure /Generated. \\d+ tokens.s/
    - figure /Time to first token. /
    - figure /Requests. \\d+ running, \\d+ waiting/
  - region "Agents":
    - heading "Agents" [level=2]
    - table "Agents":
      - rowgroup:
        - row:
          - columnheader "Name"
          - columnheader "Tokens cached"
          - columnheader "In the pool"
          - columnheader "Actions"
      - rowgroup:
        - row /atlas/:
          - rowheader "atlas"
          - cell /Chat atlas/:
            - button "Chat atlas"
            - button "Fork atlas"
            - button "Pin atlas"
            - button "Delete atlas"
  - region "Chat":
    - heading "Chat" [level=2]
    - combobox "Agent"
    - button "Fork" [disabled]
    - button "Clear" [disabled]
    - log "Conversation"
    - textbox "Message"
    - button "Send"
"""


def faults(page: Page) -> str:
    """What axe-core objects to or cannot decide, in both themes; nothing in the best case."""
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        results = AXE.run(page, options=TOLD).response
        assert {"color-contrast", "button-name"} <= {rule["id"] for rule in results["passes"]}
        for rule in (*results["violations"], *results["incomplete"]):
            places = [node["target"] for node in rule["nodes"]]
            found.append(f"{scheme}: {rule['help']}: {places}")
    return "\n".join(found)


def test_the_page_has_no_faults(page: Page) -> None:
    """With agents, one of them pinned, a conversation, the options open, an error, and a dialog."""
    name = f"ivy{page.viewport_size['width']}" if page.viewport_size else "ivy"
    start_agent(page, name)
    assert faults(page) == ""
    say(page, "Name a bird.", tokens=4)
    expect(page.locator(".turn .facts")).to_have_count(1, timeout=ANSWER_MS)
    page.get_by_role("button", name=f"Pin {name}", exact=True).click()
    expect(page.locator("tr", has_text=name)).to_contain_text("pinned")
    page.get_by_text("Options").click()
    page.locator("#notice").evaluate("(e) => { e.textContent = 'It is lost.'; e.hidden = false; }")
    assert faults(page) == ""
    page.get_by_role("button", name=f"Fork {name}", exact=True).click()
    expect(page.get_by_role("dialog", name=f"Fork {name}")).to_be_visible()
    expect(page.get_by_role("textbox", name="Name of the fork")).to_be_focused()
    assert AXE.run(page, context="#dialog").violations_count == 0


def test_landmarks_and_controls_have_names(page: Page) -> None:
    """The narrow page has them all, too."""
    expect(page.locator("body")).to_match_aria_snapshot(LANDMARKS)


def test_a_conversation_tells_who_speaks(page: Page) -> None:
    """Colours and sides alone would leave it to the eyes."""
    say(page, "Name a bird.", tokens=4)
    expect(page.locator(".turn .facts")).to_have_count(1, timeout=ANSWER_MS)
    expect(page.get_by_role("log")).to_match_aria_snapshot(
        """
        - paragraph: "You:"
        - text: Name a bird.
        - paragraph: "Answer:"
        - text: /.+/
        - paragraph: /prompt tokens cached/
        """
    )
