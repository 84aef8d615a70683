"""`dovecote pool`: what the pool of a running server holds, and whether it is sound.

Takes an admin key where the server asks for keys; without keys, from the server's own machine.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from dovecote.client_options import (
    DEFAULT_URL,
    REFUSED,
    AsJson,
    Url,
    block_bar,
    connected,
    output,
    print_json,
)
from dovecote.tables import pool_table

__all__ = ["pool"]


def pool(
    *,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read every block and check it. Ends with 1 if one was damaged."
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What the pool of a running server holds."""
    if verify:
        _verify(url, as_json=as_json)
        return
    with connected(url) as server:
        answer = server.call("GET", "admin/pool")
    if as_json:
        print_json(answer)
    else:
        output().print(pool_table(answer))


def _verify(url: str, *, as_json: bool) -> None:
    found: dict[str, Any] = {}
    bar = nullcontext() if as_json else block_bar("reading every block")
    with connected(url) as server, bar as show:
        for found in server.events("admin/pool/verify", {"stream": True}):
            if found["object"] == "pool.verifying" and show is not None:
                show(found["frames_done"], found["frames"])
    if as_json:
        print_json(found)
    else:
        verdict = "sound" if found["sound"] else f"{found['damaged_frames']:,} damaged and dropped"
        typer.echo(f"{found['checked_frames']:,} blocks in {found['seconds']:.1f} s: {verdict}.")
    if not found["sound"]:
        raise typer.Exit(REFUSED)
