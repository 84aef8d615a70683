"""The files of services/dovecote/deploy name commands, options and variables that exist."""

from __future__ import annotations

import configparser
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from dovecote.cli import app, serve
from dovecote.config_file import option_types

DEPLOY = Path(__file__).resolve().parents[2] / "services/dovecote/deploy"
UNIT = (DEPLOY / "dovecote.service").read_text(encoding="utf-8")
CONTAINER = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {option for parameter in COMMANDS["serve"].params for option in parameter.opts}
VARIABLES = {f"DOVECOTE_{name.upper()}" for name in (*option_types(serve), "config", "api_key")}


def arguments() -> dict[str, list[str]]:
    """What each file starts, program first."""
    start = re.search(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    entry = re.search(r"^ENTRYPOINT \[(.*)\]$", CONTAINER, re.MULTILINE)
    assert start
    assert entry
    plist = plistlib.loads((DEPLOY / "dovecote.plist").read_bytes())
    return {
        "unit": start.group(1).split(),
        "plist": plist["ProgramArguments"],
        "container": re.findall(r'"([^"]+)"', entry.group(1)),
    }


@pytest.mark.parametrize("name", sorted(arguments()))
def test_what_is_started_exists(name: str) -> None:
    """A command of `dovecote`, with options that it has."""
    program, command, *rest = arguments()[name]
    assert Path(program).name == "dovecote"
    assert command == "serve"
    assert {word for word in rest if word.startswith("-")} <= OPTIONS


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_every_variable_that_is_named_is_an_option(path: Path) -> None:
    """In comments, too."""
    named = set(re.findall(r"DOVECOTE_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8")))
    assert named <= VARIABLES


def test_the_service_outlives_its_drain() -> None:
    """Both managers wait longer than the default --drain before they kill."""
    drain_s = next(p.default for p in COMMANDS["serve"].params if p.name == "drain")
    plist = plistlib.loads((DEPLOY / "dovecote.plist").read_bytes())
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert stop
    assert int(stop.group(1)) > drain_s
    assert plist["ExitTimeOut"] > drain_s


def test_the_unit_gives_the_service_nothing_but_its_directory() -> None:
    """No user that stays, no privileges, no files but the state directory's."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(UNIT)
    service = unit["Service"]
    assert (service["DynamicUser"], service["StateDirectory"]) == ("yes", "dovecote")
    assert (service["ProtectSystem"], service["CapabilityBoundingSet"]) == ("strict", "")
    assert "--cache-dir /var/lib/dovecote" in service["ExecStart"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Where systemd is: it knows every line of it."""
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("systemd-analyze is not here")
    unit = tmp_path / "dovecote.service"
    unit.write_text(UNIT.replace("/opt/dovecote/bin/dovecote", sys.executable))
    found = subprocess.run(
        [systemd, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_container_runs_as_nobody_in_particular() -> None:
    """Its caches are a volume that belongs to its user; the build copies folders that exist."""
    assert re.search(r"^USER 10001$", CONTAINER, re.MULTILINE)
    assert "VOLUME /var/lib/dovecote" in CONTAINER
    assert "DOVECOTE_CACHE_DIR=/var/lib/dovecote" in CONTAINER
    for folder in re.findall(r"^COPY (\w+) ", CONTAINER, re.MULTILINE):
        assert (DEPLOY.parents[2] / folder).is_dir()
