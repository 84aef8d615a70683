"""`dovecote agents`: the agents of a running server, and what can be done with them.

Does not know how the server is reached.
"""

from __future__ import annotations

import re
import time
from pathlib import Path  # noqa: TC003  (Typer reads annotations)
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from dovecote.client_options import (
    DEFAULT_URL,
    AsJson,
    Url,
    connected,
    output,
    print_json,
    transfer_bar,
)
from dovecote.tables import agent_facts, agent_table

if TYPE_CHECKING:
    from dovecote.server_client import ServerClient

__all__ = ["agents"]

agents = typer.Typer(
    help="The agents of a running server: list them, or do something with one.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="The agent's name.", show_default=False)]
NewName = Annotated[str, typer.Argument(help="The new name.", show_default=False)]

_LIFETIME = re.compile(r"(\d+)(s|min|h|d)")
_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def _lifetime(text: str) -> float | None:
    """Seconds of a time to live as it is written; None without one."""
    if text == "never":
        return None
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise typer.BadParameter("must be like 90s, 30min, 12h or 7d, or never.")
    return float(int(match[1]) * _UNITS_S[match[2]])


Lifetime = Annotated[
    str, typer.Argument(help="Such as 30min, 12h or 7d; or never.", show_default=False)
]


@agents.callback()
def agents_alone(
    context: typer.Context, *, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """The agents of a running server: list them, or do something with one."""
    if context.invoked_subcommand is None:
        list_agents(url=url, as_json=as_json)
        return
    for name in ("url", "as_json"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"Options come after `{context.invoked_subcommand}`.")


@agents.command("list")
def list_agents(*, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """All agents, the most recently used first."""
    with connected(url) as server:
        answer = server.call("GET", "agents")
    if as_json:
        print_json(answer)
    elif answer["data"]:
        output().print(agent_table(answer["data"], time.time()))
    else:
        typer.echo("No agents yet.")


@agents.command()
def show(name: Name, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """One agent: what it holds, its use and settings."""
    with connected(url) as server:
        _print_agent(server.call("GET", _path(name)), as_json=as_json)


@agents.command()
def pin(name: Name, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Have its blocks evicted last."""
    _change(name, {"pinned": True}, url, as_json=as_json)


@agents.command()
def unpin(name: Name, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Have its blocks evicted like any others."""
    _change(name, {"pinned": False}, url, as_json=as_json)


@agents.command()
def expire(name: Name, after: Lifetime, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Have it deleted when it has not been used for so long."""
    _change(name, {"ttl_s": _lifetime(after)}, url, as_json=as_json)


@agents.command()
def rename(
    name: Name, new_name: NewName, *, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Give it another name."""
    _change(name, {"name": new_name}, url, as_json=as_json)


@agents.command()
def fork(name: Name, new_name: NewName, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Make another agent with its history; no block is copied."""
    with connected(url) as server:
        forked = server.call("POST", f"{_path(name)}/fork", {"name": new_name})
        _print_agent(forked, as_json=as_json)


@agents.command()
def delete(name: Name, *, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Forget it, and free the blocks that nobody else needs."""
    with connected(url) as server:
        answer = server.call("DELETE", _path(name))
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{name} is deleted; {answer['freed_blocks']} blocks are free.")


@agents.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Where to; must not exist.", show_default=False)],
    *,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Write it to a file, with what is cached of it. The file holds the conversation's tokens."""
    with connected(url) as server, transfer_bar(f"exporting {name}") as show_progress:
        size = server.download(f"{_path(name)}/archive", file, show_progress)
    if as_json:
        print_json({"id": name, "object": "agent.archive", "file": str(file), "bytes": size})
    else:
        typer.echo(f"{name} is in {file}, {size:,} bytes.")


@agents.command("import")
def import_agent(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.", show_default=False)],
    *,
    name: Annotated[
        str | None, typer.Option(help="Another name for it.", show_default="its own")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Bring an exported agent in. Only from servers that you trust: its contents are believed."""
    query = "" if name is None else f"?name={quote(name, safe='')}"
    with connected(url) as server, transfer_bar(f"importing {file.name}") as show_progress:
        answer = server.upload(f"agents/archive{query}", file, show_progress)
    _print_agent(answer, as_json=as_json)


def _change(name: str, changes: dict[str, object], url: str, *, as_json: bool) -> None:
    with connected(url) as server:
        _print_agent(_patched(server, name, changes), as_json=as_json)


def _patched(server: ServerClient, name: str, changes: dict[str, object]) -> dict[str, Any]:
    return server.call("PATCH", _path(name), changes)


def _print_agent(agent: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(agent)
    else:
        output().print(agent_facts(agent, time.time()))


def _path(name: str) -> str:
    return f"agents/{quote(name, safe='')}"
