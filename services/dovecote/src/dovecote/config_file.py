"""The TOML file beneath flags and environment: where it lies, and what of it is an option's value.

A key is an option's name without its dashes: `max-rows = 4`. Options that may be given several
times take lists. Names and types are checked before anything is used; an error names file and key.

Does not know which options there are (the command's function tells), nor their bounds.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ConfigFileError", "find_config_file", "key_of", "option_types", "read_config_file"]

_TAKEN: dict[type, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "true or false"),
    int: (int, "an integer"),
    float: ((int, float), "a number"),
    str: (str, "a string"),
    Path: (str, "a string"),
    list: (list, "a list of strings"),
}
"""By an option's type, what TOML has for it and how that is called."""


class ConfigFileError(ValueError):
    """A file that cannot be used, or a key in it."""

    def __init__(self, path: Path, key: str | None, reason: str) -> None:
        super().__init__(": ".join(filter(None, (str(path), key, reason))))
        self.path = path
        self.key = key


def find_config_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """`dovecote.toml` in the user's configuration directory (XDG), None if there is none."""
    folder = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or "/") / ".config"
    path = Path(folder) / "dovecote.toml"
    return path if path.is_file() else None


def key_of(parameter: str) -> str:
    """What stands in the file for the parameter of that name."""
    return parameter.replace("_", "-")


def option_types(command: Callable[..., object]) -> dict[str, type]:
    """The options of a command and their types, the optional ones without None; not --config."""
    hints = get_type_hints(command)
    return {
        name: _plain(hint)
        for name, hint in hints.items()
        if name not in ("context", "config", "return")
    }


def read_config_file(path: Path, types: Mapping[str, type]) -> dict[str, Any]:
    """The file's values by the names of the parameters. Raises: ConfigFileError."""
    names = {key_of(name): name for name in types}
    values = {}
    for key, value in _parse(path).items():
        if key not in names:
            raise ConfigFileError(path, key, _unknown(key, names))
        _check_type(path, key, value, types[names[key]])
        values[names[key]] = value
    return values


def _plain(hint: Any) -> type:  # noqa: ANN401 - a type may be anything to Python
    one = next((each for each in get_args(hint) if each is not NoneType), hint)
    chosen = hint if get_origin(hint) is list else one
    return list if get_origin(chosen) is list else chosen


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFileError(path, None, error.strerror or str(error)) from None
    except ValueError as error:
        raise ConfigFileError(path, None, f"is no TOML file: {error}") from None


def _unknown(key: str, names: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(key, names, n=1)
    return f"is not a setting; do you mean {near[0]}?" if near else "is not a setting"


def _check_type(path: Path, key: str, value: object, wanted: type) -> None:
    taken, words = _TAKEN[wanted]
    sound = isinstance(value, taken) and isinstance(value, bool) is (wanted is bool)
    if sound and isinstance(value, list):
        sound = all(isinstance(each, str) for each in value)
    if not sound:
        raise ConfigFileError(path, key, f"must be {words}, not {_described(value)}")


def _described(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
