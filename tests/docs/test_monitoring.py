"""The alert file and the dashboard ask for metrics, and labels, that a running server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tiny_engine import build

from dovecote_http.operators.metrics import HttpMetrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "services/dovecote/deploy"
ALERTS = DEPLOY / "prometheus-alerts.yml"
DASHBOARD = DEPLOY / "grafana-dashboard.json"
SCRAPED_LABELS = {"instance", "job", "le"}


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Every sample's name, with the names of its labels."""
    engine, metrics = build(), HttpMetrics()
    metrics.count_request("/models", 200)
    text = metrics.render(engine.status).decode()
    engine.close()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> list[str]:
    rules = [r for group in yaml.safe_load(ALERTS.read_text())["groups"] for r in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    return [rule["expr"] for rule in rules] + asked


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_what_is_there(expression: str, served: dict[str, set[str]]) -> None:
    for name, selector in re.findall(r"(dovecote_\w+)(?:\{([^}]*)\})?", expression):
        assert name in served
        labels = set(re.findall(r"(\w+)\s*[=!]~?", selector))
        assert labels <= served[name] | SCRAPED_LABELS, name
    assert expression.count("(") == expression.count(")")


def test_every_alert_says_what_is_wrong_and_is_explained() -> None:
    """A summary in the file, and a line in docs/operations.md."""
    operations = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert f"`{rule['alert']}`" in operations


def test_the_dashboard_s_panels_do_not_overlap() -> None:
    places = [
        (panel["gridPos"]["x"], panel["gridPos"]["y"])
        for panel in json.loads(DASHBOARD.read_text())["panels"]
    ]
    assert len(set(places)) == len(places)
