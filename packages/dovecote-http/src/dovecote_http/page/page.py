"""GET / and its files: the page for people, as it lies in the package.

Everything comes from this server, and the policy sent along holds browsers to that: no script or
style but from the files below, no address but this one. The files hold no secrets and are given to
everybody; what the page shows it asks for with the viewer's own key.

Does not know what the page does.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from aiohttp import web

from dovecote_http.middlewares import expect

__all__ = ["POLICY", "load", "routes"]

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the browser keeps it and asks by its ETag
}
_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page. `tag` changes with its content."""

    content: bytes
    content_type: str
    tag: str


_FILES: Final = web.AppKey("web_page_files", dict[str, _File])


async def load(app: web.Application) -> None:
    """Reads the files, once (a startup signal: what follows needs no disk)."""
    app[_FILES] = await asyncio.to_thread(_read)


async def page(request: web.Request) -> web.Response:
    """The page."""
    return _answer(request, request.app[_FILES][_INDEX])


async def part(request: web.Request) -> web.Response:
    """One of its files."""
    file = request.app[_FILES].get(request.match_info["name"])
    if file is None:
        raise web.HTTPNotFound
    return _answer(request, file)


def routes() -> list[web.RouteDef]:
    """The page at /, and its files under /web/."""
    return [
        web.get("/", page, expect_handler=expect),
        web.get("/web/{name}", part, expect_handler=expect),
    ]


def _answer(request: web.Request, file: _File) -> web.Response:
    """The file, or 304 to a browser that has it already."""
    if any(tag.value in (file.tag, "*") for tag in request.if_none_match or ()):
        response = web.Response(status=304, headers=_HEADERS)
    else:
        response = web.Response(
            body=file.content, content_type=file.content_type, charset="utf-8", headers=_HEADERS
        )
    response.etag = file.tag
    return response


def _read() -> dict[str, _File]:
    found = {}
    for entry in (files("dovecote_http.page") / "web").iterdir():
        content_type = _TYPES.get(PurePath(entry.name).suffix)
        if content_type is not None:
            content = entry.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:32]
            found[entry.name] = _File(content, content_type, tag)
    return found
