"""Runs the same work against several servers, one after the other, and compares them.

    python -m compare --out build/compare [--quick] [--only dovecote] [--url NAME=URL=MODEL]

Writes compare.json, compare.md and compare.svg, anew after each server. Exit code 1 if a server did
not start or an answer did not come whole.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from machine import machine
from server_process import ServerProcess

from compare.float_model import write_float_model
from compare.servers import Given, found_servers
from compare.tables import as_json, as_markdown, as_svg
from compare.workloads import Figures, Size, run_workloads
from dovecote_engine.models.embedded import embedded_gguf

if TYPE_CHECKING:
    from compare.servers import Server

QUICK = Size(history_lines=8, shared_lines=6, agents=4, at_once=(1, 3), answer_tokens=8)


def main() -> None:
    """The command."""
    arguments = _parser().parse_args()
    size = QUICK if arguments.quick else Size()
    where = machine("SmolLM2-135M-Instruct")  # before the work, for the load
    found: list[Figures] = []
    with tempfile.TemporaryDirectory() as name:
        for server in _servers(arguments, Path(name)):
            found.append(measured(server, size))
            _write(found, where, arguments.out)
    print(f"{as_markdown(found)}\n\n{where}")
    sys.exit(1 if any(each.failures for each in found) else 0)


def measured(server: Server, size: Size) -> Figures:
    """What it made of the work; a server that does not start costs the others nothing."""
    print(f"{server.name} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        found = run_workloads(server, size)
    except RuntimeError as error:
        found = Figures(server.name, failures=[str(error)])
    print(f"{server.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def _write(found: list[Figures], where: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = f"{as_markdown(found)}\n\n{where}\n"
    texts = {"json": as_json(found, where), "md": table, "svg": as_svg(found, where)}
    for ending, text in texts.items():
        (folder / f"compare.{ending}").write_text(text, encoding="utf-8")


def _servers(arguments: argparse.Namespace, folder: Path) -> list[Server]:
    given: list[Server] = []
    for each in arguments.url:
        name, url, model = each.split("=", 2)
        given.append(Given(name, url, model))
    with ServerProcess(folder, ("--memory-only", "--pool-size", "64MiB")):
        pass  # converts the embedded model, for all of them
    (model_dir,) = (path for path in (folder / "models").iterdir() if path.is_dir())
    write_float_model(model_dir, folder / "float32")
    found = found_servers(folder / "float32", embedded_gguf(), folder)
    wanted = arguments.only or [server.name for server in found]
    return [*(server for server in found if server.name in wanted), *given]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("build/compare"), help="a folder")
    parser.add_argument("--quick", action="store_true", help="a minute of small work, to try it")
    parser.add_argument("--only", action="append", help="a server's name; may be repeated")
    parser.add_argument(
        "--url", action="append", default=[], metavar="NAME=URL=MODEL", help="one that runs already"
    )
    return parser


if __name__ == "__main__":
    main()
