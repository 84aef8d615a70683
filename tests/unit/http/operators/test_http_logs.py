"""Logs: one line a request, with its id, and no word of the conversation."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from dovecote_engine.errors import BadRequest
from dovecote_http import log_json_lines
from tests.unit.http.scripted_engine import Script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict

    from tests.unit.http.conftest import Service, Start


async def test_a_request_is_one_line_with_its_id(service: Service) -> None:
    """Method, route, status, time and request id, and nothing that a client wrote."""
    body = {"messages": [{"role": "user", "content": "my secret"}], "user": "secret"}
    with capture_logs(processors=[merge_contextvars]) as logs:
        async with service.post(body, X_Request_ID="r-7"):
            pass
    (line,) = logs
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": "r-7",
        "method": "POST",
        "route": "/chat/completions",
        "status": 200,
    }


async def test_a_client_that_left_is_a_499(start: Start) -> None:
    """The line of an abandoned request says that its client went."""
    service = await start(Script(holds_after=1))
    left = asyncio.Event()

    def tell(_logger: object, _method: str, event: EventDict) -> EventDict:
        left.set()
        return event

    with capture_logs(processors=[tell]) as logs:
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with service.post(body) as response:
            await response.content.readuntil(b"Hello")
            response.close()
        await service.until(lambda: service.engine.cancelled)
        await left.wait()
    assert [line["status"] for line in logs] == [499]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the configured loggers write; the configuration ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    log_json_lines(stream)
    structlog.configure(cache_logger_on_first_use=False)  # or modules keep it after the test
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def test_every_event_is_one_json_line(lines: io.StringIO) -> None:
    """Events of structlog and of the standard library look alike, with the bound request id."""
    with bound_contextvars(request_id="r-1"):
        structlog.get_logger("dovecote.test").info("ours", n=1)
        logging.getLogger("aiohttp.server").warning("theirs %d", 2)
    ours, theirs = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (ours["event"], ours["n"], ours["logger"]) == ("ours", 1, "dovecote.test")
    assert (theirs["event"], theirs["level"]) == ("theirs 2", "warning")
    assert ours["request_id"] == theirs["request_id"] == "r-1"


def test_tracebacks_hold_no_variables(lines: io.StringIO) -> None:
    """A prompt in a local variable stays out of the log."""
    prompt = ["Top", "secret"]
    try:
        prompt.remove("x")
    except ValueError as error:
        structlog.get_logger("dovecote.test").error("failed", exc_info=error)
    (line,) = lines.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "ValueError"
    assert "secret" not in line


async def test_no_line_holds_a_word_of_a_conversation(start: Start, lines: io.StringIO) -> None:
    """Whatever happens to it: answered, streamed, refused, failed, crashed, malformed, unknown."""
    service = await start(Script(texts=("private-answer",)))
    script, tokenizer = service.engine.script, service.engine.model.tokenizer
    body = {
        "messages": [{"role": "user", "content": "private-prompt"}],
        "user": "private-name",
        "cache_salt": "private-salt",
    }
    wrong: tuple[object, ...] = (
        {**body, "model": "private-model"},
        {**body, "stop": ["private-stop"] * 9},
        {"messages": "private-text"},
        ["private-list"],
    )
    for sent in (body, {**body, "stream": True}, *wrong):
        async with service.post(sent) as response:
            await response.read()
    script.refusal = BadRequest("No.", "messages")
    async with service.post(body) as response:
        assert response.status == 400
    script.refusal, script.fails_after = None, 0
    async with service.post({**body, "stream": True}) as response:
        await response.read()
    tokenizer.error = ZeroDivisionError("a defect")
    async with service.post(body) as response:
        assert response.status == 500
    tokenizer.error, script.crashes_after = None, 0
    async with service.post(body) as response:
        assert response.status == 500
    async with service.session.get("/v1/agents/private-name?private-query") as response:
        assert response.status in (404, 503)
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {line["event"] for line in logged} >= {"request", "request_failed", "engine_failed"}
    assert "private-" not in lines.getvalue()
