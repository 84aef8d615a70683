"""Runs scenarios against any OpenAI-compatible server and prints what they found.

    python -m load turns normal --url http://127.0.0.1:8080 --pid 4242 --json turns.json

Exit code 1 if something expected did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from machine import machine

from load.client import LoadClient
from load.scenarios import SCENARIOS, Stage

if TYPE_CHECKING:
    from load.report import Report


def main() -> None:
    """The command."""
    arguments = _parser().parse_args()
    model = arguments.model or _first_model(arguments.url, arguments.key)
    reports: list[Report] = []
    for name in arguments.scenarios:
        reports.append(asyncio.run(_run(name, model, arguments)))
        if arguments.json:  # after each: hours of work are not lost to what comes after them
            _write(arguments, model, reports)
    sys.exit(1 if any(report.unmet for report in reports) else 0)


def _write(arguments: argparse.Namespace, model: str, reports: list[Report]) -> None:
    played = " ".join(report.scenario for report in reports)
    found = {
        "machine": machine(model),
        "command": f"nox -s load -- {played} --scale {arguments.scale:g}",
        "reports": [report.as_json() for report in reports],
    }
    arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


async def _run(name: str, model: str, arguments: argparse.Namespace) -> Report:
    async with LoadClient(arguments.url, model, key=arguments.key) as client:
        stage = Stage(client, arguments.pid, arguments.scale, arguments.most_p95)
        report = await SCENARIOS[name](stage)
    print(report, flush=True)
    return report


def _first_model(url: str, key: str) -> str:
    address = url.rstrip("/").removesuffix("/v1") + "/v1/models"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(json.load(response)["data"][0]["id"])


def _parser() -> argparse.ArgumentParser:
    told = "\n".join(
        f"  {name:14} {(each.__doc__ or '').splitlines()[0]}" for name, each in SCENARIOS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m load",
        description=__doc__,
        epilog=f"scenarios:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="+", choices=SCENARIOS, metavar="SCENARIO")
    parser.add_argument("--url", required=True, help="the server, with or without /v1")
    parser.add_argument("--model", help="a model's name; the first that is listed if left out")
    parser.add_argument("--key", default=os.environ.get("OPENAI_API_KEY", "any"), help="API key")
    parser.add_argument("--pid", type=int, help="the server's process, to watch its memory")
    parser.add_argument("--scale", type=float, default=1.0, help="of the full length; 1 by default")
    parser.add_argument("--most-p95", type=float, default=2.0, help="seconds, at normal load")
    parser.add_argument("--json", type=Path, help="also write the reports to this file")
    return parser


if __name__ == "__main__":
    main()
