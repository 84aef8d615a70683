"""Calls on a running server over HTTP, for the commands that people type.

    ClientError
    ├── NoServer        nothing answers at the address
    └── ServerRefused   the server answered with an error; its own words

Does not know what the calls mean, nor how answers are shown.
"""

from __future__ import annotations

import http.client
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["ClientError", "NoServer", "ServerClient", "ServerRefused"]

_CHUNK_BYTES: Final = 1 << 18
_SILENCE_S: Final = 600.0
"""An answer in one piece may take minutes on a CPU; streams show signs of life in between."""

_CUT: Final = "the connection was cut"


class ClientError(Exception):
    """What was asked of the server did not happen."""


class NoServer(ClientError):
    """Nothing answers at the address, or it is none."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"No server answers at {url} ({reason}).")
        self.url = url


class ServerRefused(ClientError):
    """The server answered, and the answer is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServerClient:
    """One server's API. `key` None sends none. Any thread; a connection a call."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Raises: NoServer if the address cannot be one."""
        place = urlsplit(url if "://" in url else f"http://{url}")
        if place.scheme not in ("http", "https") or not place.hostname:
            raise NoServer(url, "not an http:// or https:// address")
        self.url = url
        self._place = place
        self._prefix = place.path.rstrip("/").removesuffix("/v1") + "/v1"
        self._key = key

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The JSON of the answer. Raises: NoServer, ServerRefused."""
        data = None if body is None else json.dumps(body).encode()
        with self._answer(method, path, data, "application/json") as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    def events(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """The events of a stream, as they come. Closing the iterator cancels the request.

        Raises: NoServer, for a stream without its end as well; ServerRefused.
        """
        with self._answer("POST", path, json.dumps(body).encode(), "application/json") as response:
            for line in response:
                if line.startswith(b"data: [DONE]"):
                    return
                if line.startswith(b"data: "):
                    event = json.loads(line.removeprefix(b"data: "))
                    if "error" in event:
                        raise ServerRefused(200, event["error"]["message"])
                    yield event
            raise NoServer(self.url, _CUT)

    def download(self, path: str, to: Path, show: Callable[[int, int], None]) -> int:
        """Writes the answer to a new file, and tells `show` how far it is; its bytes.

        Raises: NoServer, ServerRefused, OSError; no file is left then.
        """
        with self._answer("GET", path, None, None) as response, _new_file(to) as file:
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                show(file.tell(), total)
            if total and file.tell() != total:
                raise NoServer(self.url, _CUT)
            return file.tell()

    def upload(self, path: str, source: Path, show: Callable[[int, int], None]) -> dict[str, Any]:
        """Sends a file and tells `show` how far it is. Raises: NoServer, ServerRefused, OSError."""
        total = source.stat().st_size
        with source.open("rb") as file:

            def chunks() -> Iterator[bytes]:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
                    show(file.tell(), total)

            kind = "application/octet-stream"
            with self._answer("POST", path, chunks(), kind, total) as response:
                answer: dict[str, Any] = json.loads(response.read())
                return answer

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        kind: str | None,
        length: int | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Accept": "application/json, text/event-stream, */*"}
        headers |= {"Content-Type": kind} if kind else {}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        headers |= {"Content-Length": str(length)} if length is not None else {}
        connection = self._connection()
        try:
            connection.request(method, f"{self._prefix}/{path}", body, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise ServerRefused(response.status, _message(response))
            yield response
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise NoServer(self.url, str(error) or type(error).__name__) from error
        except OSError as error:
            if error.filename is not None:  # a file of ours
                raise
            raise NoServer(self.url, error.strerror or str(error)) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        https = self._place.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        try:
            return kind(str(self._place.hostname), self._place.port, timeout=_SILENCE_S)
        except (http.client.InvalidURL, ValueError) as error:
            raise NoServer(self.url, str(error)) from error


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that was not there before, and is not there after an error."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise


def _message(response: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(response.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {response.status} {response.reason}."
