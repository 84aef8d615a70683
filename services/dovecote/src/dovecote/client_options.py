"""What all commands that talk to a running server have in common: options, errors, exit codes.

    0 done    1 the server refused    2 the command line is wrong    3 no server answers

Does not know any of the commands.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from dovecote.server_client import ClientError, NoServer, ServerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["AsJson", "Url", "block_bar", "connected", "output", "print_json", "transfer_bar"]

KEY_VARIABLE: Final = "DOVECOTE_API_KEY"
"""A key on the command line would be seen by everybody on the machine."""

REFUSED: Final = 1
NO_SERVER: Final = 3

Url = Annotated[
    str, typer.Option(envvar="DOVECOTE_URL", help="The server; its key is in DOVECOTE_API_KEY.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for scripts.")]

DEFAULT_URL: Final = "http://127.0.0.1:8080"


@contextmanager
def connected(url: str) -> Iterator[ServerClient]:
    """A client of the server. Errors end the command with a line that says what to do."""
    try:
        yield ServerClient(url, os.environ.get(KEY_VARIABLE) or None)
    except NoServer as error:
        _say(f"{error} Start one with `dovecote serve`, or name another with --url.")
        raise typer.Exit(NO_SERVER) from None
    except ClientError as error:
        _say(str(error))
        raise typer.Exit(REFUSED) from None
    except OSError as error:
        _say(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
        raise typer.Exit(REFUSED) from None


def output() -> Console:
    """Where tables go. In a pipe they are as wide as they need to be."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def print_json(value: object) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def transfer_bar(words: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Shows on a terminal how far a file is: done and all bytes. Quiet elsewhere."""
    return _bar(words, DownloadColumn(), TransferSpeedColumn())


def block_bar(words: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Shows on a terminal how far a walk through the pool is, in blocks. Quiet elsewhere."""
    return _bar(words, MofNCompleteColumn(), TextColumn("blocks"), TimeRemainingColumn())


@contextmanager
def _bar(words: str, *columns: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    shown = (TextColumn(words), BarColumn(), *columns)
    console = Console(stderr=True)
    with Progress(*shown, console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _say(text: str) -> None:
    typer.echo(f"dovecote: {text}", err=True)
