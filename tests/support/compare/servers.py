"""Servers to compare: ours, mlx-lm's with and without a fast BLAS, llama.cpp's, or one at a URL.

Each is a context manager with a `url`, the `model` to ask for, and `restart`, which kills it as a
crash would. One runs at a time.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from conversation import MODEL
from server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Dovecote", "Given", "Launched", "Server", "found_servers", "llama_cpp", "mlx_lm"]

_START_S = 180.0

# mlx-lm's own command, with our BLAS library in front of MLX.
_MLX_LM_WITH_BLAS = (
    "from dovecote_native import blas; blas.activate(); from mlx_lm.server import main; main()"
)


class Server(Protocol):
    """One server under comparison."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def can_restart(self) -> bool: ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...
    def restart(self) -> None:
        """SIGKILL, and start again."""


class Dovecote:
    """`dovecote serve` on the embedded model."""

    name = "dovecote"
    model = MODEL
    can_restart = True

    def __init__(self, cache_dir: Path, *options: str) -> None:
        self._process = ServerProcess(cache_dir, ("--pool-size", "1GiB", *options))

    @property
    def url(self) -> str:
        return self._process.url

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()

    def restart(self) -> None:
        self._process.kill()
        self._process.start()


@dataclass
class Launched:
    """A server by its command line, in which `{port}` stands for the port."""

    name: str
    command: Sequence[str]
    model: str
    health: str = "/health"
    can_restart: bool = True
    url: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._kill()

    def restart(self) -> None:
        self._kill()
        self._start()

    def _start(self) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in self.command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        deadline = time.monotonic() + _START_S
        while not _answers(self.url + self.health):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._kill()
                raise RuntimeError(f"{self.name} did not start: {' '.join(self.command)}")
            time.sleep(0.2)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class Given:
    """A server that somebody else runs: it cannot be restarted."""

    name: str
    url: str
    model: str
    can_restart: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def restart(self) -> None:
        raise RuntimeError("a server at a URL is not ours to kill")


def mlx_lm(model_dir: Path, *, with_blas: bool) -> Launched:
    """mlx-lm's server on the same converted model."""
    start = ["-c", _MLX_LM_WITH_BLAS] if with_blas else ["-m", "mlx_lm.server"]
    options = ["--model", str(model_dir), "--port", "{port}", "--log-level", "ERROR"]
    name = "mlx_lm.server" + (" with OpenBLAS" if with_blas else "")
    return Launched(name, [sys.executable, *start, *options], "default_model")


def llama_cpp(gguf: Path) -> Launched:
    """llama.cpp's server on the model's GGUF file."""
    command = ["llama-server", "-m", str(gguf), "--port", "{port}", "-np", "4", "-c", "16384"]
    return Launched("llama-server", command, "any")


def found_servers(model_dir: Path, gguf: Path, cache_dir: Path) -> list[Server]:
    """All that can be compared on this machine: llama.cpp's where it is on the PATH."""
    servers: list[Server] = [
        Dovecote(cache_dir),
        mlx_lm(model_dir, with_blas=True),
        mlx_lm(model_dir, with_blas=False),
    ]
    if shutil.which("llama-server"):
        servers.append(llama_cpp(gguf))
    return servers


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
