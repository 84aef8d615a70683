"""The documentation says what there is, and nothing that there is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from tiny_engine import build

from dovecote.cli import app
from dovecote_http import EngineBridge, HttpSettings, make_app
from dovecote_http.operators.metrics import HttpMetrics

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
API = (ROOT / "docs/api.md").read_text(encoding="utf-8")


def serve_options() -> dict[str, str]:
    """Every option of `dovecote serve` with its help."""
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {
        parameter.opts[0]: parameter.help
        for parameter in command.params
        if parameter.opts[0] != "--help"
    }


def routes() -> set[str]:
    """Method and path of every route below /v1."""

    def no_engine() -> object:
        raise NotImplementedError

    application = make_app(EngineBridge(no_engine), HttpSettings())  # type: ignore[arg-type]
    found = set()
    for route in application.router.routes():
        path = route.resource.canonical if route.resource else ""
        if route.method != "HEAD" and path.startswith("/v1"):
            found.add(f"{route.method} {path}")
    return found


@pytest.mark.parametrize("option", sorted(serve_options()))
def test_every_option_explains_itself(option: str) -> None:
    assert serve_options()[option], f"{option} has no help"


def test_every_option_can_come_from_the_environment() -> None:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    for parameter in command.params:
        if parameter.opts[0] != "--help":
            name = parameter.opts[0].removeprefix("--").replace("-", "_").upper()
            assert parameter.envvar == f"DOVECOTE_{name}"


@pytest.mark.parametrize("route", sorted(routes()))
def test_every_endpoint_is_documented(route: str) -> None:
    method, path = route.split(" ")
    bare = re.sub(r"{id:.*}", "{id}", path)
    assert f"`{method} {bare}`" in API or f"`{method} {bare.removeprefix('/v1')}`" in API


def test_the_documented_endpoints_exist() -> None:
    known = {re.sub(r"{id:.*}", "{id}", route) for route in routes()}
    known |= {route.replace("/v1", "", 1) for route in known}
    known.add("GET /")  # the page
    for endpoint in re.findall(r"`((?:GET|POST|DELETE) /\S*)`", API):
        assert endpoint in known


def test_every_metric_is_documented_and_no_other() -> None:
    """What a running engine renders is what docs/api.md lists."""
    engine = build()
    text = HttpMetrics().render(engine.status).decode()
    engine.close()
    rendered = set(re.findall(r"^# HELP (\w+) ", text, re.MULTILINE))
    documented = set(re.findall(r"^\| `(dovecote_\w+)` \|", API, re.MULTILINE))
    assert documented == {name for name in rendered if not name.endswith("_created")}


def test_the_readme_s_commands_are_nox_sessions() -> None:
    """Each session that the README names exists, and CI runs the README's test command."""
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^def (\w+)\(session", noxfile, re.MULTILINE))
    named = set(re.findall(r"noxfile\.py -s (\w+)", README))
    assert "serve" in named
    assert named <= sessions
    assert "python3 noxfile.py\n" in README
    assert "python3 noxfile.py\n" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize(
    "document",
    ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))),
)
def test_links_lead_somewhere(document: str) -> None:
    """Relative links, and files named in backticks with a known folder, exist."""
    text = (ROOT / document).read_text(encoding="utf-8")
    folder = (ROOT / document).parent
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (folder / link).exists(), f"{document} links to {link}"
    for path in re.findall(r"`((?:docs|native|packages|services|tests)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{document} names {path}"
