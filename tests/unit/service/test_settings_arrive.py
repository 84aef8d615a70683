"""Settings arrive where they count, and none that is accepted ends in a traceback there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from typer.testing import CliRunner

from dovecote import server
from dovecote.cli import app
from dovecote.config import Settings
from dovecote.server import http_settings
from dovecote.wiring import engine_options
from dovecote_http import HttpSettings

Made = Callable[..., Settings]

EDGES = (
    ("--drain", "0", "-1"),
    ("--max-rows", "1", "0"),
    ("--max-waiting", "1", "0"),
    ("--max-waiting-tokens", "1", "0"),
    ("--max-connections", "1", "0"),
    ("--max-body", "1KiB", "1023"),
    ("--slab-size", "1MiB", "1023KiB"),
    ("--pool-size", "1MiB", "1023KiB"),
    ("--chunk-ms", "1", "0"),
    ("--block-tokens", "1", "0"),
    ("--block-tokens", "256", "257"),
    ("--threads", "1", "0"),
    ("--gap-ratio", "1.001", "1"),
    ("--gap-ratio", "99", "inf"),
    ("--pin-limit", "0", "-0.1"),
    ("--pin-limit", "1", "1.1"),
    ("--rate-limit-requests", "1", "0"),
    ("--rate-limit-tokens", "1", "0"),
    *(
        (f"--{name}", "0.001", wrong)
        for name in (
            "keepalive",
            "queue-timeout",
            "request-timeout",
            "receive-timeout",
            "send-timeout",
        )
        for wrong in ("0", "-1", "nan", "inf")
    ),
)
"""An option, a value at its edge, and one just beyond."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The settings of `dovecote serve` with these flags."""
    found: list[Settings] = []

    def keep(settings: Settings) -> int:
        found.append(settings)
        return 0

    monkeypatch.setattr(server, "run", keep)

    def make(*flags: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["serve", *flags])
        assert result.exit_code == code, result.output
        return result.output if code else found[-1]

    return make


@pytest.mark.parametrize(("option", "sound", "beyond"), EDGES)
def test_what_is_accepted_is_accepted_everywhere(
    made: Made, option: str, sound: str, beyond: str
) -> None:
    """A value at the edge makes limits of the engine and of the service; one beyond it is named."""
    settings = made(option, sound)
    http_settings(settings)
    engine_options(settings)
    assert option in " ".join(str(made(option, beyond, code=2)).split()).replace("- ", "-")


def test_each_limit_of_the_service_is_the_option_s(made: Made) -> None:
    """None is left out, and none stands in another's place."""
    names = {
        "max_body_bytes": ("--max-body", "70000"),
        "keepalive_s": ("--keepalive", "71"),
        "drain_s": ("--drain", "72"),
        "request_timeout_s": ("--request-timeout", "73"),
        "receive_timeout_s": ("--receive-timeout", "74"),
        "send_timeout_s": ("--send-timeout", "75"),
        "max_connections": ("--max-connections", "76"),
    }
    limits = http_settings(made(*(word for pair in names.values() for word in pair)))
    assert {name: float(getattr(limits, name)) for name in names} == {
        name: float(value) for name, (_, value) in names.items()
    }
    assert http_settings(made("--model-alias", "gpt-5")).model_aliases == {"gpt-5"}
    fixed = {"idle_timeout_s", "stall_s"}
    assert {each.name for each in fields(HttpSettings)} == {*names, "model_aliases", *fixed}


def test_each_limit_of_the_engine_is_the_option_s(made: Made) -> None:
    """Seconds stay seconds, and milliseconds become them."""
    words = (
        "--max-rows 3 --max-waiting 5 --max-waiting-tokens 77 --queue-timeout 78 --slab-size 79MiB"
        " --pin-limit 0.25 --gap-ratio 1.5 --chunk-ms 80"
    )
    options = engine_options(made(*words.split()))
    assert (options.max_rows, options.max_waiting, options.max_waiting_tokens) == (3, 5, 77)
    assert (options.queue_seconds, options.slab_bytes) == (78, 79 << 20)
    assert (options.pin_limit, options.gap_ratio, options.chunk_seconds) == (0.25, 1.5, 0.08)
