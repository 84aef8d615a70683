"""The OpenAPI document, and the service held to it by requests made from it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from dovecote_http import EngineBridge, HttpSettings, make_app
from dovecote_http.access.listener import Listener
from dovecote_http.openapi import document
from tests.unit.http.scripted_engine import Script, ScriptedEngine

if TYPE_CHECKING:
    from tests.unit.http.conftest import Service

APP = make_app(EngineBridge(ScriptedEngine), HttpSettings())
DOCUMENT = document(APP.router.routes())
UNBOUNDED = {"/overview/stream"}
"""Streams that end when the server does."""
STATEFUL = {"/admin/drain", "/admin/undrain", "/admin/swap"}
"""They close the door to everybody else; tests of their own hold them."""

OPERATIONS = [
    (method.upper(), path)
    for path, operations in DOCUMENT["paths"].items()
    for method in operations
    if path not in UNBOUNDED | STATEFUL
]


@contextmanager
def served() -> Iterator[str]:
    """The address of a service over a scripted engine, in an event loop of its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def listener() -> Listener:
        script = Script(texts=("Hello", " world"))
        return Listener(make_app(EngineBridge(lambda: ScriptedEngine(script)), HttpSettings()))

    made = run(listener())
    try:
        run(made.prepare())
        yield f"http://127.0.0.1:{run(made.open('127.0.0.1', 0))}"
    finally:
        run(made.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as url:
        yield url


def test_every_route_is_named() -> None:
    """With its summary; none of /v1 beside the one without it."""
    for route in APP.router.routes():
        if route.method == "HEAD" or route.resource is None:
            continue
        path = route.resource.canonical.removeprefix("/v1")
        operation = DOCUMENT["paths"][path][route.method.lower()]
        assert operation["summary"] != path, f"{route.method} {path} has no docstring"


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [each["operationId"] for path in DOCUMENT["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))


async def test_the_document_is_published(service: Service) -> None:
    """As it is made, in the version that it says."""
    for path in ("/openapi.json", "/v1/openapi.json"):
        async with service.session.get(path) as response:
            body = await response.json()
        assert body["openapi"] == "3.1.0"
        assert body["paths"].keys() == DOCUMENT["paths"].keys()


@pytest.mark.parametrize(
    ("path", "body"),
    (
        ("/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/completions", {"prompt": "Hi"}),
        ("/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}),
        ("/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/responses", {"input": "Hi"}),
        ("/tokenize", {"content": "Hi", "with_pieces": True}),
        ("/detokenize", {"tokens": [72]}),
        ("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]}),
    ),
)
async def test_answers_are_as_the_document_says(
    service: Service, path: str, body: dict[str, object]
) -> None:
    """A success and an error, each of the schema that the document has for it."""
    operation = DOCUMENT["paths"][path]["post"]
    for sent, kind in ((body, "2XX"), ({}, "default")):
        async with service.session.post(path, json=sent) as response:
            answer = await response.json()
            assert response.ok is (kind == "2XX")
        schema = operation["responses"][kind]["content"]["application/json"]["schema"]
        jsonschema_rs.validate({**schema, "components": DOCUMENT["components"]}, answer)


@pytest.mark.filterwarnings("default")  # those of the generators are not ours
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_that_the_document_allows_breaks_the_service(
    address: str, method: str, path: str
) -> None:
    """Whatever schemathesis makes of it: an answer, and for errors that of its schema."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]
    error = DOCUMENT["paths"][path][method.lower()]["responses"]["default"]
    schema = error["content"]["application/json"]["schema"]
    whole = {**schema, "components": DOCUMENT["components"]}

    @given(case=operation.as_strategy())
    @settings(
        max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def hold(case: Any) -> None:
        response = case.call(base_url=address, timeout=20)
        assert response.status_code < 500, case.as_curl_command()
        if response.status_code >= 400:
            jsonschema_rs.validate(whole, response.json())

    hold()
