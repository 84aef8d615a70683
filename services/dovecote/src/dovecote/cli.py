"""The `dovecote` command: reads flags, environment and file into Settings, and starts the server.

Does not import MLX: that happens after the BLAS library is in place (`server.run`).
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dovecote import __version__
from dovecote.config import SettingError, Settings, parse_codec, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app", "main"]

T = TypeVar("T")

app = typer.Typer(
    name="dovecote",
    help="An OpenAI-compatible server on MLX in which each of many agents keeps its own KV cache.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def default_cache_dir() -> Path:
    """The user's cache directory for Dovecote, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dovecote"


def _parsed(parse: Callable[[str], T], text: str) -> T:
    """What the text of an option means. Raises BadParameter, which ends the command with 2."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _print_version(asked: bool) -> None:  # noqa: FBT001  (typer hands it over)
    if asked:
        typer.echo(f"dovecote {__version__}")
        raise typer.Exit


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of this command, below flags and environment."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    known = {parameter.name for parameter in context.command.params}
    defaults: dict[str, Any] = {name.replace("-", "_"): value for name, value in values.items()}
    if unknown := sorted(defaults.keys() - known):
        raise typer.BadParameter(f"{path} has unknown settings: {', '.join(unknown)}")
    context.default_map = defaults
    return path


@app.callback()
def dovecote(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say it.")
    ] = False,
) -> None:
    """An OpenAI-compatible server on MLX in which each of many agents keeps its own KV cache."""


@app.command()
def serve(  # noqa: PLR0913  (one parameter an option)
    *,
    config: Annotated[  # noqa: ARG001  (its callback has read it)
        Path | None,
        typer.Option(
            envvar="DOVECOTE_CONFIG",
            callback=_read_config,
            is_eager=True,
            help="A TOML file of these options (max-rows = 4), below flags and environment.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            envvar="DOVECOTE_MODEL",
            help="What to serve: `embedded` (SmolLM2-135M-Instruct), a directory of an mlx-lm "
            "model, a .gguf file of the llama architecture, or a name on the Hugging Face hub.",
        ),
    ] = "embedded",
    host: Annotated[
        str, typer.Option(envvar="DOVECOTE_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="DOVECOTE_PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    cache_dir: Annotated[
        Path,
        typer.Option(
            envvar="DOVECOTE_CACHE_DIR",
            default_factory=default_cache_dir,
            help="Directory of pools, converted models and the agents' book (made with mode 0700).",
        ),
    ],
    memory_only: Annotated[
        bool,
        typer.Option(
            "--memory-only",
            envvar="DOVECOTE_MEMORY_ONLY",
            help="Keep the pool in memory: nothing outlives the server.",
        ),
    ] = False,
    codec: Annotated[
        str,
        typer.Option(
            envvar="DOVECOTE_CODEC", help="How K and V are stored: exact, f16, q8, k8v4 or q4."
        ),
    ] = "q8",
    pool_size: Annotated[
        str,
        typer.Option(
            envvar="DOVECOTE_POOL_SIZE",
            help="Size of the pool file, taken at once: 500MB, 4GiB. A pool found with another "
            "size is resized, keeping what fits.",
        ),
    ] = "4GiB",
    disk_budget: Annotated[
        str | None,
        typer.Option(
            envvar="DOVECOTE_DISK_BUDGET",
            show_default="--pool-size twice, beside what may not be removed",
            help="What everything in the cache directory may take, files of others included. At "
            "start what a crash left, unreadable pools and pools of other models go, in that "
            "order, until the pool fits; if it still does not, it becomes smaller.",
        ),
    ] = None,
    block_tokens: Annotated[
        int, typer.Option(envvar="DOVECOTE_BLOCK_TOKENS", help="Tokens a block.")
    ] = 32,
    max_rows: Annotated[
        int,
        typer.Option(
            envvar="DOVECOTE_MAX_ROWS",
            help="Requests that run at once. One more is let in for an agent's interactive request "
            "while requests without agent or in the background hold more than half of them.",
        ),
    ] = 8,
    max_waiting: Annotated[
        int,
        typer.Option(
            envvar="DOVECOTE_MAX_WAITING", help="Requests that wait for a row before 429 is given."
        ),
    ] = 64,
    max_waiting_tokens: Annotated[
        int,
        typer.Option(
            envvar="DOVECOTE_MAX_WAITING_TOKENS",
            help="Prompt tokens that may wait for a row, all waiting requests together, before 429 "
            "is given; one request alone may be longer.",
        ),
    ] = 65536,
    queue_timeout: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_QUEUE_TIMEOUT",
            help="Seconds that a request may wait for a row; then it gets 429 with Retry-After.",
        ),
    ] = 300.0,
    request_timeout: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_REQUEST_TIMEOUT",
            help="Seconds that a request may take in all; then it is cancelled and gets 504.",
        ),
    ] = 3600.0,
    slab_size: Annotated[
        str,
        typer.Option(
            envvar="DOVECOTE_SLAB_SIZE",
            help="Memory that the K and V of running requests may take, beside the pool. It bounds "
            "rows times the longest of them, and with it the context of one request.",
        ),
    ] = "4GiB",
    chunk_ms: Annotated[
        int,
        typer.Option(
            envvar="DOVECOTE_CHUNK_MS",
            help="Time that a piece of prefill may take between tokens of running requests.",
        ),
    ] = 250,
    max_body: Annotated[
        str, typer.Option(envvar="DOVECOTE_MAX_BODY", help="Largest request body.")
    ] = "32MiB",
    keepalive: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_KEEPALIVE", help="Seconds between signs of life on a silent stream."
        ),
    ] = 5.0,
    drain: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_DRAIN", help="Seconds that running requests have to end on SIGTERM."
        ),
    ] = 30.0,
    blas: Annotated[
        bool,
        typer.Option(
            envvar="DOVECOTE_BLAS",
            help="On Linux without a GPU, compute with OpenBLAS instead of the reference BLAS.",
        ),
    ] = True,
    threads: Annotated[
        int,
        typer.Option(
            envvar="DOVECOTE_THREADS",
            default_factory=lambda: os.cpu_count() or 1,
            show_default="all cores",
            help="Threads that OpenBLAS may use.",
        ),
    ],
) -> None:
    """Serve a model over HTTP until SIGTERM or SIGINT."""
    try:
        settings = Settings(
            model=model,
            host=host,
            port=port,
            cache_dir=cache_dir.expanduser(),
            memory_only=memory_only,
            codec=_parsed(parse_codec, codec),
            pool_bytes=_parsed(parse_size, pool_size),
            disk_budget_bytes=None if disk_budget is None else _parsed(parse_size, disk_budget),
            block_tokens=block_tokens,
            max_rows=max_rows,
            max_waiting=max_waiting,
            max_waiting_tokens=max_waiting_tokens,
            queue_timeout_s=queue_timeout,
            request_timeout_s=request_timeout,
            slab_bytes=_parsed(parse_size, slab_size),
            chunk_ms=chunk_ms,
            max_body_bytes=_parsed(parse_size, max_body),
            keepalive_s=keepalive,
            drain_s=drain,
            blas=blas,
            threads=threads,
        )
    except SettingError as error:
        raise typer.BadParameter(str(error)) from None
    from dovecote import server

    raise typer.Exit(server.run(settings))


def main() -> None:
    """Run the command line."""
    app()
