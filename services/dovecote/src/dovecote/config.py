"""The settings of one server: one frozen value, checked once when it is made.

Does not know where a setting came from: the command line merges flags, environment, file and
defaults before it gets here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, get_args

from dovecote_cache import CodecName

if TYPE_CHECKING:
    from pathlib import Path

UNITS: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s,]+")
SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


class SettingError(ValueError):
    """A setting that cannot be used. `name` is the option at fault."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.reason = message


def parse_size(text: str) -> int:
    """Bytes of a size such as `4GiB`, `500MB` or `1048576`. Raises ValueError."""
    match = SIZE.fullmatch(text)
    unit = UNITS.get(match.group(2).upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size; write 500MB or 4GiB")
    return int(float(match.group(1)) * unit)


def parse_codec(text: str) -> CodecName:
    """The codec of that name. Raises ValueError."""
    names: tuple[CodecName, ...] = get_args(CodecName)
    if text not in names:
        raise ValueError(f"{text!r} is not a codec; there are {', '.join(names)}")
    return text


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with. Raises SettingError when a value cannot be used."""

    model: str
    host: str
    port: int
    cache_dir: Path
    memory_only: bool
    codec: CodecName
    pool_bytes: int
    disk_budget_bytes: int | None
    pin_limit: float
    block_tokens: int
    max_rows: int
    max_waiting: int
    max_waiting_tokens: int
    queue_timeout_s: float
    request_timeout_s: float
    slab_bytes: int
    gap_ratio: float
    chunk_ms: int
    max_body_bytes: int
    keepalive_s: float
    drain_s: float
    blas: bool
    threads: int
    models: tuple[str, ...]
    model_aliases: tuple[str, ...]
    api_keys: Path | None
    share_prefixes: bool
    rate_limit_requests: int | None
    rate_limit_tokens: int | None
    cors_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    receive_timeout_s: float
    send_timeout_s: float
    max_connections: int
    swap_on_request: bool

    def __post_init__(self) -> None:
        self._check(0 <= self.port <= 65535, "--port", "must be 0 to 65535")
        self._check(1 <= self.block_tokens <= 256, "--block-tokens", "must be 1 to 256")
        self._check(1 <= self.max_rows <= 256, "--max-rows", "must be 1 to 256")
        self._check(self.max_waiting >= 1, "--max-waiting", "must be at least 1")
        self._check(self.max_waiting_tokens >= 1, "--max-waiting-tokens", "must be at least 1")
        self._check(0 < self.queue_timeout_s < inf, "--queue-timeout", "must be more than 0")
        self._check(0 < self.request_timeout_s < inf, "--request-timeout", "must be more than 0")
        self._check(self.slab_bytes >= 2**20, "--slab-size", "must be at least 1MiB")
        self._check(1 < self.gap_ratio < inf, "--gap-ratio", "must be more than 1")
        self._check(self.chunk_ms >= 1, "--chunk-ms", "must be at least 1")
        self._check(self.pool_bytes >= 2**20, "--pool-size", "must be at least 1MiB")
        self._check(0 <= self.pin_limit <= 1, "--pin-limit", "must be 0 to 1")
        self._check(self.max_body_bytes >= 2**10, "--max-body", "must be at least 1KiB")
        self._check(self.threads >= 1, "--threads", "must be at least 1")
        self._check(0 < self.receive_timeout_s < inf, "--receive-timeout", "must be more than 0")
        self._check(0 < self.send_timeout_s < inf, "--send-timeout", "must be more than 0")
        self._check(self.max_connections >= 1, "--max-connections", "must be at least 1")
        for name in ("requests", "tokens"):
            limit = getattr(self, f"rate_limit_{name}")
            sound = limit is None or limit >= 1
            self._check(sound, f"--rate-limit-{name}", "must be at least 1")
        for origin in self.cors_origins:
            sound = origin in ("*", "null") or ORIGIN.fullmatch(origin) is not None
            self._check(sound, "--cors-origin", f"{origin!r} is no origin: scheme://host[:port]")
        self._check(0 < self.keepalive_s < inf, "--keepalive", "must be more than 0")
        self._check(0 <= self.drain_s < inf, "--drain", "must not be negative")

    @staticmethod
    def _check(holds: bool, name: str, message: str) -> None:  # noqa: FBT001
        if not holds:
            raise SettingError(name, message)
