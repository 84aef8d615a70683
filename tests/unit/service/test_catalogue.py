"""Which models a server may be asked to serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from dovecote.catalogue import LocalModels
from dovecote.config import SettingError, Settings
from dovecote_engine import ModelError

EMBEDDED = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Wishes:
    """What the catalogue reads of the settings."""

    model: str
    models: tuple[str, ...]
    swap_on_request: bool = False


def settings(model: str, *models: str) -> Settings:
    return cast("Settings", Wishes(model, models))


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Two directories with a configuration, one without, and a .gguf file."""
    for name in ("owl", "crow", "elsewhere/owl"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wren.gguf").touch()
    return tmp_path


def test_listed_models_go_by_their_public_names(places: Path) -> None:
    """The first one too; each is found by its name and by its place, and no other."""
    models = LocalModels(settings("embedded", f"{places}/owl", f"{places}/wren.gguf", "a/hub-name"))
    assert list(models.names) == [EMBEDDED, "owl", "wren", "a/hub-name"]
    for name in ("owl", f"{places}/owl"):
        choice = models.find(name)
        assert choice.name == "owl"
        assert choice.factory.args[0].model == f"{places}/owl"  # type: ignore[attr-defined]
    for name in (f"{places}/crow", "another/hub-name", "/", ""):
        with pytest.raises(ModelError, match="--models lists"):
            models.find(name)


def test_without_a_list_what_lies_here_may_be_served(places: Path) -> None:
    """But nothing is fetched, and a directory that holds no model is noticed at once."""
    models = LocalModels(settings(f"{places}/owl"))
    found = {name: models.find(name).name for name in ("embedded", EMBEDDED, f"{places}/crow")}
    assert found == {"embedded": EMBEDDED, EMBEDDED: EMBEDDED, f"{places}/crow": "crow"}
    for name, reason in (
        ("a/hub-name", "not on this machine"),
        (f"{places}/empty", "without a config.json"),
        (f"{places}/missing", "no model directory"),
        ("", "no model directory"),
    ):
        with pytest.raises(ModelError, match=reason):
            models.find(name)


def test_two_models_of_one_name_are_refused(places: Path) -> None:
    """Clients could not tell them apart. The same place twice is no matter."""
    with pytest.raises(SettingError, match="--models"):
        LocalModels(settings(f"{places}/owl", f"{places}/elsewhere/owl"))
    assert list(LocalModels(settings(f"{places}/owl", f"{places}/owl")).names) == ["owl"]


def test_a_list_with_a_model_that_is_not_there_is_refused(places: Path) -> None:
    with pytest.raises(ModelError, match="missing"):
        LocalModels(settings("embedded", f"{places}/missing"))
