"""Who may ask, from settings, a file of keys and the environment.

Keys never come on the command line, since every user of the machine can list that.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dovecote.config import SettingError
from dovecote_http import Access, ApiKey, BadKeys, KeyRing, RateLimits, parse_keys

if TYPE_CHECKING:
    from pathlib import Path

    from dovecote.config import Settings

__all__ = ["KEYS_VARIABLE", "build_access"]

KEYS_VARIABLE = "DOVECOTE_API_KEY"
"""Holds keys themselves, as the file does or one alone. (DOVECOTE_API_KEYS names the file.)"""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("dovecote")


def build_access(settings: Settings) -> Access:
    """The rules that the settings ask for. Raises: SettingError."""
    keys = None
    if settings.api_keys is not None or os.environ.get(KEYS_VARIABLE):
        keys = KeyRing(partial(_read_keys, settings.api_keys))
        _log.info("api_keys", keys=len(keys), shares_prefixes=settings.share_prefixes)
    elif not _is_loopback(settings.host):
        _log.warning("no_api_keys", host=settings.host, advice="anyone who reaches it may use it")
    return Access(
        keys=keys,
        shares_prefixes=settings.share_prefixes,
        limits=RateLimits(settings.rate_limit_requests, settings.rate_limit_tokens),
        origins=frozenset(settings.cors_origins),
        hosts=_hosts(settings),
    )


def _hosts(settings: Settings) -> frozenset[str] | None:
    """The names to insist on; on other addresses nobody can know them all, so none."""
    if settings.allowed_hosts or _is_loopback(settings.host):
        return frozenset(name.lower() for name in settings.allowed_hosts)
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_keys(path: Path | None) -> tuple[ApiKey, ...]:
    """The keys of the file and of the environment. Raises: SettingError."""
    keys = _parsed(KEYS_VARIABLE, os.environ.get(KEYS_VARIABLE, ""))
    if path is not None:
        try:
            _warn_of_readers(path)
            keys += _parsed("--api-keys", path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError("--api-keys", f"{path} cannot be read: {error}") from None
    if not keys:
        raise SettingError("--api-keys", "no key is there, so nobody could be let in")
    return keys


def _parsed(source: str, text: str) -> tuple[ApiKey, ...]:
    try:
        return parse_keys(text)
    except BadKeys as error:
        raise SettingError(source, str(error)) from None


def _warn_of_readers(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("api_keys_readable", file=str(path), mode=f"{mode:04o}", advice="chmod 600")
