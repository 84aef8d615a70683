"""Tables for people: agents and the pool.

Does not know where the numbers come from. All names are shown as they are, without markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["agent_facts", "agent_table", "pool_table", "text_of_age", "text_of_bytes"]

_POOL_STATES = (
    ("leased", "leased_frames", "orange3"),
    ("cached", "cached_frames", "blue"),
    ("free", "free_frames", "dim"),
)
_BAR_WIDTH = 48


def text_of_bytes(size: float) -> str:
    """`7.1 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def text_of_age(seconds: float) -> str:
    """`12 s ago`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def agent_table(agents: Iterable[dict[str, Any]], now: float) -> Table:
    """A row an agent. `now` in unix seconds, as the agents' times are."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", overflow="fold", style="bold")
    for words in ("tokens", "cached", "own", "shared", "uses"):
        table.add_column(words, justify="right")
    table.add_column("last used")
    table.add_column("state")
    for agent in agents:
        table.add_row(
            Text(agent["id"]),
            f"{agent['tokens']:,}",
            f"{agent['cached_tokens']:,}",
            text_of_bytes(agent["own_bytes"]),
            text_of_bytes(agent["shared_bytes"]),
            f"{agent['uses']:,}",
            text_of_age(now - agent["last_used"]),
            Text(_state(agent)),
        )
    return table


def agent_facts(agent: dict[str, Any], now: float) -> Table:
    """Everything about one agent, a line a fact."""
    table = _facts()
    rows = (
        ("name", agent["id"]),
        ("model", agent["model"]),
        ("tokens", f"{agent['tokens']:,}, {agent['cached_tokens']:,} of them cached"),
        ("in the pool", _shares(agent)),
        ("turns", f"{agent['uses']:,}, the last {text_of_age(now - agent['last_used'])}"),
        ("found in the pool", f"{agent['hit_tokens']:,} tokens in all"),
        ("created", text_of_age(now - agent["created"])),
        ("state", _state(agent) or "resting"),
        ("forked from", agent["forked_from"] or "nobody"),
        ("expires", _expiry(agent, now)),
    )
    for name, value in rows:
        table.add_row(name, Text(str(value)))
    return table


def pool_table(pool: dict[str, Any]) -> Table:
    """The pool: its states as a bar, then numbers."""
    table = _facts()
    size = pool["frame_bytes"]
    table.add_row("model", Text(pool["model"]))
    table.add_row("", _bar(pool))
    for words, field, style in _POOL_STATES:
        frames = pool[field]
        told = f"{frames:,} blocks, {text_of_bytes(frames * size)}"
        table.add_row(words, Text(told, style=style))
    table.add_row("pinned", f"{pool['pinned_frames']:,} of the leased and cached")
    table.add_row("promised", f"{pool['promised_frames']:,} to running requests")
    table.add_row("tokens", f"{pool['tokens']:,}")
    table.add_row("file", text_of_bytes(pool["file_bytes"]))
    table.add_row("held in memory", text_of_bytes(pool["held_bytes"]))
    return table


def _facts() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _bar(pool: dict[str, Any]) -> Text:
    """Blocks by state; what is there at all has a cell at least."""
    frames = max(1, pool["frames"])
    bar = Text()
    for _, field, style in _POOL_STATES[:-1]:
        cells = round(_BAR_WIDTH * pool[field] / frames)
        bar.append("█" * (max(1, cells) if pool[field] else 0), style=style)
    bar.append("░" * max(0, _BAR_WIDTH - len(bar)), style="dim")
    return bar


def _state(agent: dict[str, Any]) -> str:
    return ", ".join(word for word in ("busy", "pinned") if agent[word])


def _shares(agent: dict[str, Any]) -> str:
    own, shared = text_of_bytes(agent["own_bytes"]), text_of_bytes(agent["shared_bytes"])
    return f"{own} own, {shared} shared"


def _expiry(agent: dict[str, Any], now: float) -> str:
    if agent["expires"] is None:
        return "never"
    return f"in {max(0, int(agent['expires'] - now)):,} s without use"
