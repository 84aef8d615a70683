"""The page at /: its files, as they are served, and that they ask for nothing from elsewhere."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dovecote_http.page.page import POLICY

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service

FOLDER = files("dovecote_http.page") / "web"
TEXTS = {entry.name: entry.read_text(encoding="utf-8") for entry in FOLDER.iterdir()}
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}
XML_NAMESPACE = re.compile(r"http://www\.w3\.org/\d+/svg")


@pytest.mark.parametrize("name", sorted(TEXTS))
async def test_every_file_is_served_under_the_policy(service: Service, name: str) -> None:
    """With its type, to be asked for again by its tag, and closed to frames and other scripts."""
    path = "/" if name == "index.html" else f"/web/{name}"
    async with service.session.get(path) as response:
        assert response.status == 200
        assert response.content_type == TYPES[name.rpartition(".")[2]]
        assert await response.text() == TEXTS[name]
        headers = response.headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"
    async with service.session.get(path, headers={"If-None-Match": headers["ETag"]}) as again:
        assert (again.status, await again.read()) == (304, b"")
        assert again.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize("name", ("none.js", "..%2Findex.html", "..%2F..%2Fapp.py", "py.typed"))
async def test_there_are_no_other_files(service: Service, name: str) -> None:
    """A name is looked up, never a path."""
    async with service.session.get(f"/web/{name}") as response:
        assert response.status == 404


def test_the_policy_allows_this_server_alone() -> None:
    """Every source is the server itself or nothing; scripts and styles inside the page are not."""
    sources = {part.split(" ", 1)[0]: part.split(" ", 1)[1] for part in POLICY.split("; ")}
    assert set(sources.values()) == {"'self'", "'none'"}
    assert sources["default-src"] == "'none'"
    assert "<style" not in TEXTS["index.html"]
    assert re.findall(r"<script(?![^>]*\ssrc=)", TEXTS["index.html"]) == []
    assert re.findall(r"\s(?:style|on\w+)=", TEXTS["index.html"]) == []


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_no_file_names_another_address(name: str) -> None:
    """Neither absolute addresses nor paths from the root, so that a proxy may put it anywhere."""
    text = XML_NAMESPACE.sub("", TEXTS[name])
    assert re.findall(r"https?://|(?:src|href|url)\s*[=(]\s*[\"']?//?\w", text) == []
    assert "innerHTML" not in text


def test_wheels_carry_every_file() -> None:
    """They lie in one folder, which the distribution names."""
    project = Path(__file__).parents[4] / "packages/dovecote-http/pyproject.toml"
    data = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]
    assert "page/web/*" in data["dovecote_http"]
    assert all(entry.is_file() for entry in FOLDER.iterdir())


def test_every_part_that_is_named_is_there() -> None:
    """What the page and its modules load are files of the folder."""
    loaded = set(re.findall(r'(?:src|href)="web/([\w.]+)"', TEXTS["index.html"]))
    for name, text in TEXTS.items():
        if name.endswith(".js"):
            loaded |= set(re.findall(r'from "\./([\w.]+)"', text))
    assert loaded | {"index.html"} == set(TEXTS)
    ids = set(re.findall(r'\sid="([\w-]+)"', TEXTS["index.html"]))
    asked = {i for text in TEXTS.values() for i in re.findall(r'find\("([\w-]+)"\)', text)}
    assert asked <= ids
