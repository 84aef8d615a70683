"""The `dovecote` command: `serve` from flags, environment and file; and the clients' commands.

Does not import MLX: that happens after the BLAS library is in place (`server.run`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dovecote import __version__
from dovecote.agents_command import agents
from dovecote.chat_command import chat
from dovecote.config import SettingError, Settings, parse_codec, parse_size
from dovecote.config_file import (
    ConfigFileError,
    find_config_file,
    key_of,
    option_types,
    read_config_file,
)
from dovecote.pool_command import pool

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


def _parsed(parse: Callable[[str], T], text: str, option: str) -> T:
    """What the text of an option means. Raises SettingError."""
    try:
        return parse(text)
    except ValueError as error:
        raise SettingError(option, str(error)) from None


def _print_version(asked: bool) -> None:  # noqa: FBT001  (typer hands it over)
    if asked:
        typer.echo(f"dovecote {__version__}")
        raise typer.Exit


def _read_config(context: typer.Context, given: Path | None) -> Path | None:
    """Makes the file's values the defaults of this command, below flags and environment."""
    path = find_config_file() if given is None else given.expanduser()
    if path is not None:
        try:
            context.default_map = read_config_file(path, option_types(serve))
        except ConfigFileError as error:
            raise typer.BadParameter(str(error)) from None
    return path


def _origin(context: typer.Context, option: str, config: Path | None) -> str:
    """Where the value of an option came from, for who has to change it there."""
    for parameter in context.command.params:
        if parameter.opts[0] == option and parameter.name is not None:
            source = context.get_parameter_source(parameter.name)
            if source is not None and source.name == "DEFAULT_MAP":
                return f"{config}: {key_of(parameter.name)}"
            if source is not None and source.name == "ENVIRONMENT":
                return str(parameter.envvar)
    return option


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
    context: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="DOVECOTE_CONFIG",
            callback=_read_config,
            is_eager=True,
            show_default="~/.config/dovecote.toml, if it is there",
            help="A TOML file of these options (max-rows = 4), below flags and environment.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            envvar="DOVECOTE_MODEL",
            help="What to serve: `embedded` (SmolLM2-135M-Instruct), a directory of an mlx-lm "
            "model, a .gguf file (llama, gemma3), or a name on the Hugging Face hub.",
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
            show_default="$XDG_CACHE_HOME/dovecote, else ~/.cache/dovecote",
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
    pin_limit: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_PIN_LIMIT",
            help="Share of the pool that pinned agents may have between them, 0 to 1. The chains "
            "of all other agents live in the rest.",
        ),
    ] = 0.5,
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
    gap_ratio: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_GAP_RATIO",
            help="How many times as long as alone the gap between tokens of running requests may "
            "get while another one's prompt is computed or restored. More of it gets prompts done "
            "sooner on a busy server.",
        ),
    ] = 1.8,
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
            help="Threads that products, attention and restores may use.",
        ),
    ],
    api_keys: Annotated[
        Path | None,
        typer.Option(
            envvar="DOVECOTE_API_KEYS",
            help="A file of the API keys that are taken, a line NAME:KEY each, `NAME:KEY admin` "
            "for an administrator's; mode 0600. Keys may also stand in the variable "
            "DOVECOTE_API_KEY itself. Without either no key is asked for. SIGHUP reads it again.",
        ),
    ] = None,
    share_prefixes: Annotated[
        bool,
        typer.Option(
            "--share-prefixes",
            envvar="DOVECOTE_SHARE_PREFIXES",
            help="Let the owners of different API keys share equal prefixes. They can then learn "
            "from cached_tokens, and from the time, what others have sent.",
        ),
    ] = False,
    rate_limit_requests: Annotated[
        int | None,
        typer.Option(
            envvar="DOVECOTE_RATE_LIMIT_REQUESTS",
            show_default="no limit",
            help="POST requests a minute for each API key (each client address without keys); "
            "beyond that 429 with Retry-After.",
        ),
    ] = None,
    rate_limit_tokens: Annotated[
        int | None,
        typer.Option(
            envvar="DOVECOTE_RATE_LIMIT_TOKENS",
            show_default="no limit",
            help="Tokens a minute, of prompts and answers together, for each API key (each client "
            "address without keys).",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="DOVECOTE_CORS_ORIGIN",
            show_default="none",
            help="An origin whose web pages may call this server and read its answers, such as "
            "https://chat.example; may be given several times. `*` stands for all.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="DOVECOTE_ALLOWED_HOST",
            show_default="none",
            help="A name under which clients may call this server, beside addresses and localhost; "
            "may be given several times. Without API keys a server on loopback refuses others.",
        ),
    ] = None,
    receive_timeout: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_RECEIVE_TIMEOUT",
            help="Seconds within which a request's head has to arrive; its body has to keep "
            "coming, 16 KiB a second on average in each such span. Else 408.",
        ),
    ] = 30.0,
    send_timeout: Annotated[
        float,
        typer.Option(
            envvar="DOVECOTE_SEND_TIMEOUT",
            help="Seconds after which a client that reads nothing of its answer is cut off and its "
            "request cancelled.",
        ),
    ] = 60.0,
    max_connections: Annotated[
        int,
        typer.Option(
            envvar="DOVECOTE_MAX_CONNECTIONS",
            help="Connections that may be open. Beyond that the longest idle one is closed for a "
            "new one; if all have requests, the new one gets 503.",
        ),
    ] = 1024,
    models: Annotated[
        str,
        typer.Option(
            envvar="DOVECOTE_MODELS",
            help="Other models that an operator may have served in place of the first "
            "(POST /admin/swap), as --model takes them, separated by commas. Without it, any that "
            "lies on this machine.",
        ),
    ] = "",
    model_alias: Annotated[
        list[str] | None,
        typer.Option(
            envvar="DOVECOTE_MODEL_ALIAS",
            show_default="none",
            help="A further name under which requests may ask for the served model, for clients "
            "that send names of their own; may be given several times. `*` stands for all names.",
        ),
    ] = None,
    swap_on_request: Annotated[
        bool,
        typer.Option(
            "--swap-on-request",
            envvar="DOVECOTE_SWAP_ON_REQUEST",
            help="Let any request that names one of --models have it loaded: everybody else then "
            "waits for the one and comes back for the other. For one user with several models.",
        ),
    ] = False,
) -> None:
    """Serve a model over HTTP until SIGTERM or SIGINT."""
    try:
        settings = Settings(
            model=model,
            host=host,
            port=port,
            cache_dir=cache_dir.expanduser(),
            memory_only=memory_only,
            codec=_parsed(parse_codec, codec, "--codec"),
            pool_bytes=_parsed(parse_size, pool_size, "--pool-size"),
            disk_budget_bytes=None
            if disk_budget is None
            else _parsed(parse_size, disk_budget, "--disk-budget"),
            pin_limit=pin_limit,
            block_tokens=block_tokens,
            max_rows=max_rows,
            max_waiting=max_waiting,
            max_waiting_tokens=max_waiting_tokens,
            queue_timeout_s=queue_timeout,
            request_timeout_s=request_timeout,
            slab_bytes=_parsed(parse_size, slab_size, "--slab-size"),
            gap_ratio=gap_ratio,
            chunk_ms=chunk_ms,
            max_body_bytes=_parsed(parse_size, max_body, "--max-body"),
            keepalive_s=keepalive,
            drain_s=drain,
            blas=blas,
            threads=threads,
            models=tuple(place.strip() for place in models.split(",") if place.strip()),
            model_aliases=tuple(model_alias or ()),
            swap_on_request=swap_on_request,
            api_keys=None if api_keys is None else api_keys.expanduser(),
            share_prefixes=share_prefixes,
            rate_limit_requests=rate_limit_requests,
            rate_limit_tokens=rate_limit_tokens,
            cors_origins=tuple(cors_origin or ()),
            allowed_hosts=tuple(allowed_host or ()),
            receive_timeout_s=receive_timeout,
            send_timeout_s=send_timeout,
            max_connections=max_connections,
        )
    except SettingError as error:
        place = _origin(context, error.name, config)
        raise typer.BadParameter(f"{place}: {error.reason}") from None
    from dovecote import server

    raise typer.Exit(server.run(settings))


app.add_typer(agents, name="agents")
app.command()(pool)
app.command()(chat)


def main() -> None:
    """Run the command line."""
    app()
