"""GET /openapi.json: the service as an OpenAPI 3.1 document, made from what it is made of.

    route table --> paths, summaries (the first line of each handler's docstring)
    BODIES      --> the structs that bodies are read into and answers written from, as JSON schema

Paths are named without /v1: all but the web page's answer behind it, too. Does not know requests.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from msgspec import Struct

from dovecote_http.agents import agents, cache_probe
from dovecote_http.answers import cancellation
from dovecote_http.answers.bodies import ChatBody
from dovecote_http.answers.replies import Completion
from dovecote_http.anthropic import messages
from dovecote_http.anthropic import replies as message_replies
from dovecote_http.anthropic.body import CountBody, MessageBody
from dovecote_http.errors import ErrorBody  # noqa: TC001 - msgspec reads the annotations
from dovecote_http.openai import listing, tokenization
from dovecote_http.openai.completion_body import CompletionBody
from dovecote_http.openai.completion_replies import TextCompletion
from dovecote_http.operators import admin, overview
from dovecote_http.responses import answering
from dovecote_http.responses.bodies import Response
from dovecote_http.responses.body import ResponseBody

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BODIES", "describe", "document"]

VERSION = "3.1.0"

_JSON = "application/json"
_EVENTS = "text/event-stream"
_REF = "#/components/schemas/{name}"


class Error(Struct, frozen=True):
    """What every answer is that is not a success, but for messages."""

    error: ErrorBody


class MessageErrorBody(Struct, frozen=True):
    """The inner object of an error of messages."""

    type: str
    message: str


class MessageError(Struct, frozen=True, tag_field="type", tag="error"):
    """What an answer of messages is that is not a success."""

    error: MessageErrorBody


@dataclass(frozen=True, slots=True)
class Bodies:
    """What a route reads and answers, as far as that is JSON. `streams`: or as events."""

    answer: type[Struct] | None = None
    body: type[Struct] | None = None
    streams: bool = False
    error: type[Struct] = Error


BODIES = {
    "POST /chat/completions": Bodies(Completion, ChatBody, streams=True),
    "POST /completions": Bodies(TextCompletion, CompletionBody, streams=True),
    "POST /messages": Bodies(
        message_replies.Message, MessageBody, streams=True, error=MessageError
    ),
    "POST /messages/count_tokens": Bodies(messages.TokenCount, CountBody, error=MessageError),
    "POST /responses": Bodies(Response, ResponseBody, streams=True),
    "GET /responses/{id}": Bodies(Response),
    "DELETE /responses/{id}": Bodies(answering.Deletion),
    "POST /tokenize": Bodies(tokenization.Tokens, tokenization.TokenizeBody),
    "POST /detokenize": Bodies(tokenization.Content, tokenization.DetokenizeBody),
    "POST /apply-template": Bodies(tokenization.Prompt, ChatBody),
    "POST /cache/probe": Bodies(cache_probe.ProbeBody, ChatBody),
    "GET /models": Bodies(listing.Listing),
    "GET /models/{id}": Bodies(listing.ModelBody),
    "GET /agents": Bodies(agents.AgentList),
    "GET /agents/{name}": Bodies(agents.AgentBody),
    "PATCH /agents/{name}": Bodies(agents.AgentBody, agents.Changes),
    "POST /agents/{name}/fork": Bodies(agents.AgentBody, agents.Fork),
    "DELETE /agents/{name}": Bodies(agents.Deletion),
    "POST /agents/archive": Bodies(agents.AgentBody),
    "DELETE /requests/{id}": Bodies(cancellation.Cancellation),
    "GET /admin/swap": Bodies(admin.SwapStatus),
    "POST /admin/swap": Bodies(admin.SwapBody, admin.SwapWish),
    "POST /admin/drain": Bodies(admin.DrainBody),
    "POST /admin/undrain": Bodies(admin.DrainBody),
    "POST /admin/pool/verify": Bodies(admin.Verification, admin.VerificationWish, streams=True),
    "GET /overview": Bodies(overview.OverviewBody),
}
"""By method and path. What is not here is named in the document without its bodies."""

_NO_JSON = Bodies()


async def describe(request: web.Request) -> web.Response:
    """The service as an OpenAPI document."""
    body = msgspec.json.encode(document(request.app.router.routes()))
    return web.Response(body=body, content_type=_JSON)


def document(routes: Iterable[web.AbstractRoute]) -> dict[str, Any]:
    """The OpenAPI document of those routes."""
    named = {kind for each in BODIES.values() for kind in (each.answer, each.body, each.error)}
    kinds = sorted(filter(None, named), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
    schemas, components = msgspec.json.schema_components(
        kinds, schema_hook=_any_value, ref_template=_REF
    )
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _path(route)
        if route.method == "HEAD" or path is None:
            continue
        operation = _operation(route, path, schema_of)
        paths.setdefault(path, {}).setdefault(route.method.lower(), operation)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Dovecote",
            "version": "1",
            "description": "All paths but those of the web page answer with the prefix /v1, too.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _any_value(kind: type) -> dict[str, Any]:
    """The schema of values that are read as they come. Raises: NotImplementedError for others."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _path(route: web.AbstractRoute) -> str | None:
    return None if route.resource is None else route.resource.canonical.removeprefix("/v1")


def _operation(route: web.AbstractRoute, path: str, schema_of: dict[Any, Any]) -> dict[str, Any]:
    bodies = BODIES.get(f"{route.method} {path}", _NO_JSON)
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{path}").strip("_"),
        "summary": (inspect.getdoc(route.handler) or path).partition("\n")[0],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", path)
        ],
        "responses": {
            "2XX": _success(bodies, schema_of),
            "default": {
                "description": "An error.",
                "content": {_JSON: {"schema": schema_of[bodies.error]}},
            },
        },
    }
    if bodies.body is not None:
        content = {_JSON: {"schema": schema_of[bodies.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _success(bodies: Bodies, schema_of: dict[Any, Any]) -> dict[str, Any]:
    if bodies.answer is None:
        return {"description": "A success."}
    content: dict[str, Any] = {_JSON: {"schema": schema_of[bodies.answer]}}
    if bodies.streams:
        content[_EVENTS] = {"schema": {"type": "string"}}
    return {"description": "A success.", "content": content}
