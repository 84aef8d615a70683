"""The models that one server may serve: the one it started with, and those that `--models` names.

Without `--models` an operator may swap to whatever lies on this machine; nothing is fetched from
the hub then, since a call should not fill a disk. Does not know how a swap goes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dovecote.config import SettingError
from dovecote.wiring import build_engine
from dovecote_engine import ModelError, model_name
from dovecote_http import ModelChoice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dovecote.config import Settings

__all__ = ["LocalModels"]


class LocalModels:
    """The catalogue of one server's settings; any thread."""

    def __init__(self, settings: Settings) -> None:
        """Looks up the names of all that is listed.

        Raises: ModelError if one is not there; SettingError if two have one name.
        """
        self._settings = settings
        listed = dict.fromkeys((settings.model, *settings.models))
        self._places = {model_name(place): place for place in listed}
        if len(self._places) < len(listed):
            raise SettingError("--models", "two models of one name cannot be told apart")

    @property
    def names(self) -> Sequence[str]:
        """Public names, that of the first model first."""
        return tuple(self._places)

    @property
    def serves_on_request(self) -> bool:
        """Whether a request that names one of `names` has it loaded."""
        return self._settings.swap_on_request

    def find(self, name: str) -> ModelChoice:
        """The model of that public name, or at that place. Raises: ModelError."""
        place = self._places.get(name, name)
        if place not in self._places.values():
            self._check_may_serve(place)
        settings = replace(self._settings, model=place)
        return ModelChoice(model_name(place), partial(build_engine, settings))

    def _check_may_serve(self, place: str) -> None:
        if self._settings.models:
            message = f"{place!r} is none of what --models lists: {', '.join(self.names)}"
            raise ModelError(message)
        is_hub_name = "/" in place and not Path(place).expanduser().exists()
        if is_hub_name and model_name(place) == place:
            message = f"{place!r} is not on this machine; list it in --models to have it fetched"
            raise ModelError(message)
