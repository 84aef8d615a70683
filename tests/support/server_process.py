"""A real `dovecote serve` in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

START_TIMEOUT_S = 120.0


@dataclass
class ServerProcess:
    """One server on a free loopback port. Use as a context manager; it is killed at the end."""

    cache_dir: Path
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._logged = threading.Condition()
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> Self:
        """Start the server and return once it listens. Raises RuntimeError with its log if not."""
        command = [sys.executable, "-m", "dovecote", "serve", "--port", "0"]
        command += ["--cache-dir", str(self.cache_dir), *self.options]
        self._process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.environment},
        )
        listening: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read_log, args=(self._process, listening))
        self._reader.start()
        url = listening.get(timeout=START_TIMEOUT_S)
        if url is None:
            self.wait()
            raise RuntimeError(f"the server did not start: {self.events}")
        self.url = url
        return self

    def kill(self) -> None:
        """SIGKILL, as a crash would. Does nothing when the server has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self.wait()

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self._running().send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit code, once the server has ended and its log is read to the end."""
        code = self._running().wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def wait_for(self, name: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """The first log event of that name, once it is there. Raises TimeoutError."""

        def found() -> dict[str, Any] | None:
            return next((event for event in self.events if event.get("event") == name), None)

        with self._logged:
            event = self._logged.wait_for(found, timeout_s)
        if event is None:
            raise TimeoutError(f"the server did not log {name}")
        return event

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def _read_log(self, process: subprocess.Popen[str], listening: queue.Queue[str | None]) -> None:
        assert process.stderr is not None
        with process.stderr as log:
            for line in log:
                event = _parse(line)
                with self._logged:
                    self.events.append(event)
                    self._logged.notify_all()
                if event.get("event") == "listening":
                    listening.put(f"http://{event['host']}:{event['port']}")
        listening.put(None)


def _parse(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"event": "output", "text": line.rstrip()}
