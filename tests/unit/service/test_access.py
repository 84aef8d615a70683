"""Options and environment as the rules of who may ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from dovecote.access import KEYS_VARIABLE, build_access
from dovecote.config import ORIGIN, SettingError, Settings
from dovecote_http.errors import ApiError

ADA, BOB = "ada-0123456789abcdef", "bob-0123456789abcdef"


@dataclass
class Wishes:
    """The settings that matter here, at their defaults."""

    host: str = "127.0.0.1"
    api_keys: Path | None = None
    share_prefixes: bool = False
    rate_limit_requests: int | None = None
    rate_limit_tokens: int | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()


def settings(**wishes: Any) -> Settings:
    return cast("Settings", Wishes(**wishes))


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"ada:{ADA}\n")
    path.chmod(0o600)
    return path


def test_without_keys_nobody_is_asked_for_one() -> None:
    access = build_access(settings())
    assert access.keys is None
    assert access.hosts == frozenset()


def test_keys_come_from_the_file_and_from_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, BOB)
    access = build_access(settings(api_keys=file))
    assert access.keys is not None
    found = [access.keys.find([key]) for key in (ADA, BOB, "other")]
    assert [key and key.tenant for key in found] == ["ada", None, None]
    assert found[1] is not None


@pytest.mark.parametrize("mode", (0o600, 0o400, 0o640, 0o604, 0o666))
def test_a_file_that_others_can_read_is_warned_of(file: Path, mode: int) -> None:
    file.chmod(mode)
    with structlog.testing.capture_logs() as logs:
        build_access(settings(api_keys=file))
    warned = [each for each in logs if each["event"] == "api_keys_readable"]
    assert bool(warned) == bool(mode & 0o077)
    assert ADA not in str(logs)


@pytest.mark.parametrize("text", ("", "# none\n", "ada:short", "ada", b"\xff"))
def test_a_file_that_lets_nobody_in_ends_the_start(file: Path, text: str | bytes) -> None:
    """Rather than with an open door."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingError) as caught:
        build_access(settings(api_keys=file))
    assert caught.value.name == "--api-keys"
    file.unlink()
    with pytest.raises(SettingError):
        build_access(settings(api_keys=file))


def test_keys_are_read_again_where_they_were_read(file: Path) -> None:
    keys = build_access(settings(api_keys=file)).keys
    assert keys is not None
    file.write_text(f"bob:{BOB}\n")
    keys.reload()
    assert keys.find([ADA]) is None
    assert keys.find([BOB]) is not None
    file.write_text("")
    with pytest.raises(SettingError):
        keys.reload()
    assert keys.find([BOB]) is not None


@pytest.mark.parametrize(
    ("host", "hosts"),
    (("127.0.0.1", set()), ("::1", set()), ("localhost", set()), ("0.0.0.0", None)),  # noqa: S104
)
def test_names_are_insisted_on_where_all_are_known(host: str, hosts: set[str] | None) -> None:
    """On loopback, and wherever some are given."""
    found: Any = build_access(settings(host=host)).hosts
    assert found == hosts
    named = build_access(settings(host=host, allowed_hosts=("Box",)))
    assert named.hosts == frozenset({"box"})


def test_an_open_server_that_others_can_reach_is_warned_of() -> None:
    with structlog.testing.capture_logs() as logs:
        build_access(settings(host="0.0.0.0"))  # noqa: S104
    assert [each["event"] for each in logs] == ["no_api_keys"]


def test_the_other_options_arrive() -> None:
    access = build_access(
        settings(
            share_prefixes=True,
            rate_limit_requests=1,
            rate_limit_tokens=7,
            cors_origins=("https://chat.example",),
        )
    )
    assert access.shares_prefixes
    assert access.origins == {"https://chat.example"}
    allowance = access.limits.of("x")
    assert allowance.headers()["x-ratelimit-limit-tokens"] == "7"
    allowance.take_request()
    with pytest.raises(ApiError):
        allowance.take_request()


@pytest.mark.parametrize(
    ("origin", "sound"),
    (
        ("https://chat.example", True),
        ("http://127.0.0.1:3000", True),
        ("chrome-extension://abc", True),
        ("chat.example", False),
        ("https://chat.example/", False),
        ("https://a b", False),
        ("https://a,https://b", False),
    ),
)
def test_an_origin_is_what_browsers_send(origin: str, sound: bool) -> None:
    assert (ORIGIN.fullmatch(origin) is not None) == sound
