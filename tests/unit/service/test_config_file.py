"""Settings come from flags, else the environment, else the file, else the defaults: each option."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from dovecote import server
from dovecote.cli import app, serve
from dovecote.config import Settings, parse_size
from dovecote.config_file import find_config_file, key_of, option_types

TYPES = option_types(serve)
COMMAND = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
OPTIONS = {parameter.name: parameter for parameter in COMMAND.params if parameter.name in TYPES}
DEFAULTS = {name: getattr(option, "default", None) for name, option in OPTIONS.items()}

Run = Callable[..., Settings]

SIZES = ("64MiB", "65MiB", "66MiB")
SAMPLES: Mapping[str, tuple[str, str, str]] = {"codec": ("exact", "f16", "q4")}
"""Where not any text will do: three values that differ from the default."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Settings of `dovecote serve` with these flags, variables and lines of a file."""
    for option in OPTIONS.values():
        monkeypatch.delenv(str(option.envvar), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made: list[Settings] = []

    def keep(settings: Settings) -> int:
        made.append(settings)
        return 0

    monkeypatch.setattr(server, "run", keep)

    def run_it(
        flags: tuple[str, ...] = (), variables: dict[str, str] | None = None, lines: str = ""
    ) -> Settings:
        (tmp_path / "dovecote.toml").write_text(lines)
        result = CliRunner().invoke(app, ["serve", *flags], env=variables or {})
        assert result.exit_code == 0, result.output
        return made[-1]

    return run_it


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """What is said of flags, variables and a file that cannot be used."""

    def refused_with(*flags: str, lines: str = "", **variables: str) -> str:
        (tmp_path / "dovecote.toml").write_text(lines)
        result = CliRunner().invoke(app, ["serve", *flags], env=variables)
        assert result.exit_code == 2
        return " ".join(result.output.split())

    return refused_with


def samples(name: str) -> tuple[Any, Any, Any]:
    """Three values that the option takes and that are not its default; a switch has but two."""
    default = DEFAULTS[name]
    number = default if isinstance(default, float) else 0.0
    step = 0.1 if number < 1 else 1.0
    text = SIZES if is_size(name) else tuple(f"/{number}/{name}" for number in range(3))
    by_type = {
        bool: (not default, bool(default), not default),
        int: (11, 12, 13),
        float: tuple(number + n * step for n in (1, 2, 3)),
        list: (["http://one"], ["http://two"], ["http://three", "http://four"]),
    }
    low, middle, high = SAMPLES.get(name, by_type.get(TYPES[name], text))
    return low, middle, high


def is_size(name: str) -> bool:
    try:
        parse_size(str(DEFAULTS[name]))
    except ValueError:
        return name == "disk_budget"
    return TYPES[name] is str


def flags(name: str, value: object) -> tuple[str, ...]:
    option = OPTIONS[name].opts[0]
    if isinstance(value, bool):
        return (option,) if value else (option.replace("--", "--no-"),)
    values = value if isinstance(value, list) else [value]
    return tuple(part for each in values for part in (option, str(each)))


def variable(name: str, value: object) -> dict[str, str]:
    text = " ".join(value) if isinstance(value, list) else str(value)
    return {str(OPTIONS[name].envvar): text}


def line(name: str, value: object) -> str:
    """JSON's scalars and lists are TOML's."""
    return f"{key_of(name)} = {json.dumps(value)}\n"


def differing(one: Settings, other: Settings) -> list[str]:
    names = [field.name for field in fields(Settings)]
    return [name for name in names if getattr(one, name) != getattr(other, name)]


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_each_option_comes_from_each_place_in_order(run: Run, name: str) -> None:
    """It changes one setting, alike from all places; flag goes before variable before file."""
    low, middle, high = samples(name)
    default = run()
    in_file = run(lines=line(name, low))
    assert len(differing(default, in_file)) == 1
    in_variable = run(variables=variable(name, middle))
    in_flag = run(flags(name, high))
    assert differing(default, in_flag) == differing(default, in_file)
    assert run(lines=line(name, high)) == run(variables=variable(name, high)) == in_flag
    assert run(variables=variable(name, middle), lines=line(name, low)) == in_variable
    assert run(flags(name, high), variable(name, middle), line(name, low)) == in_flag


def test_every_setting_has_an_option(run: Run) -> None:
    """And every option is a setting of its own: none shadows another."""
    default = run()
    changed = [differing(default, run(lines=line(name, samples(name)[0])))[0] for name in OPTIONS]
    assert sorted(changed) == sorted(field.name for field in fields(Settings))


def test_a_named_file_is_read_instead_of_the_user_s(run: Run, tmp_path: Path) -> None:
    """From the flag or from its variable."""
    other = tmp_path / "other.toml"
    other.write_text("port = 9001\n")
    assert run(lines="port = 9000\n").port == 9000
    assert run(("--config", str(other)), lines="port = 9000\n").port == 9001
    assert run((), {"DOVECOTE_CONFIG": str(other)}, "port = 9000\n").port == 9001


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    """XDG's directory first, then .config at home; neither has to be there."""
    assert find_config_file({"XDG_CONFIG_HOME": str(tmp_path)}) is None
    assert find_config_file({}) is None
    folder = tmp_path / ".config"
    folder.mkdir()
    (folder / "dovecote.toml").touch()
    assert find_config_file({"HOME": str(tmp_path)}) == folder / "dovecote.toml"


@pytest.mark.parametrize(
    ("lines", "said"),
    (
        ("max-row = 4", "max-row: is not a setting; do you mean max-rows?"),
        ("max_rows = 4", "max_rows: is not a setting; do you mean max-rows?"),
        ("config = 'x'", "config: is not a setting"),
        ("[serve]\nport = 1", "serve: is not a setting"),
        ("port = '9000'", "port: must be an integer, not '9000'"),
        ("port = true", "port: must be an integer, not True"),
        ("port = 1.5", "port: must be an integer, not 1.5"),
        ("drain = 'long'", "drain: must be a number, not 'long'"),
        ("blas = 1", "blas: must be true or false, not 1"),
        ("model = 7", "model: must be a string, not 7"),
        ("cors-origin = 'http://a'", "cors-origin: must be a list of strings, not 'http://a'"),
        ("cors-origin = [1]", "cors-origin: must be a list of strings, not [1]"),
        ("port = 70000", "port: must be 0 to 65535"),
        ("pool-size = '1 acre'", "pool-size: '1 acre' is not a size; write 500MB or 4GiB"),
        ("codec = 'q7'", "codec: 'q7' is not a codec; there are exact, f16, q8, k8v4, q4"),
        ("port 9000", "is no TOML file"),
    ),
)
def test_what_cannot_be_used_is_named_with_file_and_key(
    refused: Callable[..., str], tmp_path: Path, lines: str, said: str
) -> None:
    """Whatever is wrong with it: its name, its type, its bounds."""
    assert f"{tmp_path / 'dovecote.toml'}: {said}" in refused(lines=lines).replace("- ", "-")


def test_a_variable_or_flag_that_cannot_be_used_is_named(refused: Callable[..., str]) -> None:
    """By the name under which it was given."""
    assert "DOVECOTE_PORT: must be 0 to 65535" in refused(DOVECOTE_PORT="70000")
    assert "--port: must be 0 to 65535" in refused("--port", "70000", lines="port = 1")
    assert "missing.toml" in refused("--config", "/missing.toml")
