"""API keys: how they are written down, and whose is the one that a request brings.

A line a key; blank lines and those that begin with # say nothing:

    NAME:KEY              the key of the tenant NAME
    NAME:KEY admin        a key that sees everything and may make administrative calls
    NAME:sha256:HEX       the SHA-256 of a key in its place, with or without `admin`

Two keys of one NAME are one tenant's: so a key is replaced without a gap. A key alone in its text,
without a name, is an admin key.

K1 Only digests are kept, and no error or log line repeats a key.
K2 A key is compared with all digests, each in constant time: how long it takes tells nothing.

Does not know files or the environment.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs

from dovecote_http.access.tenants import OPERATOR, Tenant
from dovecote_http.keys import TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiohttp import web

__all__ = ["ApiKey", "BadKeys", "KeyRing", "is_admin", "parse_keys", "presented_keys", "tenant_of"]

SHORTEST_KEY = 16
"""Characters. Shorter ones can be guessed by trying."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[!-~]{16,512}")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


class BadKeys(ValueError):
    """The text of the keys cannot be used. `line` counts from 1; the message repeats no key."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key by its digest. `tenant` None: an admin's."""

    digest: bytes
    tenant: str | None


class KeyRing:
    """The keys that are taken. Any thread."""

    def __init__(self, read: Callable[[], tuple[ApiKey, ...]]) -> None:
        """`read` gives the keys, now and at each `reload`. Raises: what it raises."""
        self._read = read
        self._keys = read()

    def __len__(self) -> int:
        return len(self._keys)

    def reload(self) -> None:
        """Reads the keys again. Raises: what `read` raises; the keys are then those of before."""
        self._keys = self._read()

    def find(self, presented: Iterable[str]) -> ApiKey | None:
        """The key that one of the presented ones is, None if none is (K2)."""
        found = None
        for text in presented:
            digest = _digest(text)
            for key in self._keys:
                if hmac.compare_digest(digest, key.digest):
                    found = key
        return found


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of a text. Raises: BadKeys."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and _is_bare(lines[0][1]):
        return (ApiKey(_secret(*lines[0]), None),)
    keys = tuple(_parse_line(number, line) for number, line in lines)
    if len({key.digest for key in keys}) < len(keys):
        raise BadKeys(lines[-1][0], "a key is there twice")
    return keys


def presented_keys(headers: Mapping[str, str]) -> list[str]:
    """The keys that a request brings: `Authorization: Bearer KEY`, and `x-api-key: KEY`."""
    scheme, _, bearer = headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    keys = [bearer.strip()] if scheme.lower() == "bearer" else []
    return [key for key in (*keys, headers.get("x-api-key", "").strip()) if key]


def tenant_of(request: web.Request) -> Tenant:
    """Whose request this is. KeyError outside of the middlewares, rather than somebody else's."""
    return request[TENANT]


def is_admin(request: web.Request) -> bool:
    """Whether administrative calls are this caller's to make.

    They are with an admin key, and everybody's where no keys are asked for.
    """
    return tenant_of(request).is_admin


def tenant_for(key: ApiKey, *, shares_prefixes: bool) -> Tenant:
    """The tenant whose key that is."""
    return OPERATOR if key.tenant is None else Tenant(key.tenant, shares_prefixes)


def _is_bare(line: str) -> bool:
    return ":" not in line or _DIGEST.fullmatch(line) is not None


def _parse_line(number: int, line: str) -> ApiKey:
    name, colon, rest = line.partition(":")
    if not colon or not _NAME.fullmatch(name.strip()):
        raise BadKeys(number, "expected NAME:KEY, NAME of letters, digits, '.', '_' and '-'")
    secret, *marks = rest.split() or [""]
    if marks not in ([], ["admin"]):
        raise BadKeys(number, "only 'admin' may follow the key")
    return ApiKey(_secret(number, secret), None if marks else name.strip())


def _secret(number: int, secret: str) -> bytes:
    if digest := _DIGEST.fullmatch(secret):
        return bytes.fromhex(digest[1])
    if not _KEY.fullmatch(secret):
        raise BadKeys(number, f"a key has {SHORTEST_KEY} to 512 visible ASCII characters")
    return _digest(secret)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
