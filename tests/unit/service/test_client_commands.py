"""`dovecote agents`, `pool` and `chat` against a real service over a tiny model."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from terminal import opened
from tiny_engine import build, open_pool
from typer.testing import CliRunner

from dovecote.cli import app
from dovecote.pool_command import pool
from dovecote.server_client import NoServer, ServerClient
from dovecote_cache import AgentBook
from dovecote_http import EngineBridge, HttpSettings, make_app
from dovecote_http.access.access import Access
from dovecote_http.access.api_keys import KeyRing, parse_keys
from dovecote_http.access.listener import Listener

HISTORY = " ".join(str(n) for n in range(40))
KEY = "admin-0123456789abcdef"

Run = Callable[..., Any]


class Service:
    """A service in a thread of its own. `url` once it is up."""

    def __init__(self, access: Access | None = None) -> None:
        self._access = access
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> str:
        self._thread.start()
        assert self._up.wait(60)
        return self.url

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(60)
        self._loop.close()

    async def _run(self) -> None:
        def factory() -> Any:
            return build(pool=open_pool(size_bytes=1 << 20), book=AgentBook.in_memory())

        listener = Listener(make_app(EngineBridge(factory), HttpSettings(), self._access))
        await listener.prepare()
        self.url = f"http://127.0.0.1:{await listener.open('127.0.0.1', 0)}"
        self._up.set()
        await self._ending.wait()
        await listener.close()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The service's log stays out of what the commands print."""
    with capture_logs():
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command against a service; its output, or with `code` what it said and that code."""
    monkeypatch.delenv("DOVECOTE_API_KEY", raising=False)
    with Service() as url:
        monkeypatch.setenv("DOVECOTE_URL", url)

        def run_it(*arguments: str, code: int = 0, said: str | None = None) -> Any:
            result = CliRunner().invoke(app, list(arguments), input=said)
            assert result.exit_code == code, result.output + repr(result.exception)
            if "--json" in arguments and code == 0:
                return json.loads(result.stdout)
            return result.output

        yield run_it


def turn(run: Run, agent: str, text: str = HISTORY) -> Any:
    return run("chat", "-m", text, "--agent", agent, "--max-tokens", "3", "--json")


def test_a_message_is_answered_and_its_facts_are_told(run: Run) -> None:
    """The answer on standard output as it is; with --json all of it in one object."""
    text = run("chat", "-m", HISTORY, "--max-tokens", "3", "--temperature", "0")
    answer = run("chat", "-m", HISTORY, "--max-tokens", "3", "--temperature", "0", "--json")
    assert text.startswith(answer["text"] + "\n")
    assert answer["text"].count("<") == 3
    assert answer["finish_reason"] == "length"
    assert answer["cached_tokens"] == answer["usage"]["prompt_tokens"] - 1 == 39
    assert answer["first_token_s"] > 0
    assert run("chat", "-m", "-", "--max-tokens", "1", "--json", said="1 2 3")["text"]


def test_a_conversation_goes_on_from_its_last_line_and_forks(run: Run) -> None:
    """Bad messages are told and the conversation goes on; it ends with its input."""
    lines = ["1 2 3", "nonsense", "/clear", "4 5 6", "/fork otto", "/clear", "7 8", "/nothing"]
    said = run("chat", "--agent", "anna", "--max-tokens", "2", said="\n".join(lines))
    assert said.count("prompt tokens cached") == 3
    assert "/fork NAME" in said
    names = [agent["id"] for agent in run("agents", "--json")["data"]]
    assert names == ["otto", "anna"]
    assert run("agents", "show", "otto", "--json")["forked_from"] == "anna"


def test_agents_are_listed_changed_and_deleted(run: Run) -> None:
    """Each subcommand does what the API's call does."""
    assert "No agents yet" in run("agents")
    turn(run, "anna [b]x")
    listed = run("agents")
    assert "anna [b]x" in listed
    assert "42" in listed
    assert run("agents", "pin", "anna [b]x", "--json")["pinned"] is True
    assert "pinned" in run("agents", "list")
    assert run("agents", "unpin", "anna [b]x", "--json")["pinned"] is False
    for written, lifetime_s in (("90s", 90), ("30min", 1800), ("7d", 604800), ("never", None)):
        assert run("agents", "expire", "anna [b]x", written, "--json")["ttl_s"] == lifetime_s
    assert "without use" in run("agents", "expire", "anna [b]x", "12h")
    for wrong in ("soon", "7", "0h", "1.5h"):
        run("agents", "expire", "anna [b]x", wrong, code=1 if wrong == "0h" else 2)
    assert run("agents", "rename", "anna [b]x", "a/b", "--json")["id"] == "a/b"
    assert run("agents", "fork", "a/b", "otto", "--json")["forked_from"] == "a/b"
    assert "42, 42 of them cached" in run("agents", "show", "otto")
    assert run("agents", "delete", "otto", "--json")["deleted"] is True
    assert "is deleted" in run("agents", "delete", "a/b")


def test_an_agent_goes_through_a_file(run: Run, tmp_path: Path) -> None:
    """Exported and imported under another name; a file that exists is left alone."""
    turn(run, "anna")
    file = tmp_path / "anna.agent"
    told = run("agents", "export", "anna", str(file), "--json")
    assert told["bytes"] == file.stat().st_size
    assert "exists" in run("agents", "export", "anna", str(file), code=1)
    assert run("agents", "import", str(file), "--name", "otto", "--json")["tokens"] == 42
    assert "otto" in run("agents")
    assert "already" in run("agents", "import", str(file), code=1)
    assert "No such file" in run("agents", "import", str(tmp_path / "none"), code=1)
    missing = tmp_path / "missing"
    assert run("agents", "export", "nobody", str(missing), code=1)
    assert not missing.exists()


def test_the_pool_is_shown_and_verified(run: Run) -> None:
    """In words of the metrics; a sound pool ends with 0."""
    turn(run, "anna")
    told = run("pool", "--json")
    assert told["leased_frames"] + told["cached_frames"] + told["free_frames"] == told["frames"]
    assert f"{told['cached_frames']} blocks" in run("pool")
    assert run("pool", "--verify", "--json")["sound"] is True
    assert "sound" in run("pool", "--verify")


def test_a_verification_shows_how_far_it_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To a terminal: all blocks of all in the end. With --json it stays quiet."""
    turn(run, "anna")
    told = run("pool", "--json")
    terminal = opened(monkeypatch)
    pool(verify=True, url=os.environ["DOVECOTE_URL"], as_json=True)
    assert terminal.getvalue() == ""
    assert json.loads(capsys.readouterr().out)["checked_frames"] <= told["cached_frames"]
    pool(verify=True, url=os.environ["DOVECOTE_URL"])
    assert f"{told['frames']}/{told['frames']}" in terminal.getvalue()
    assert "sound" in capsys.readouterr().out


def test_a_stream_that_is_cut_is_no_answer() -> None:
    """What came of it is given, and then the error."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_half() -> None:
            connection, _ = listening.accept()
            with connection:
                asked = b""
                while not asked.endswith(b"{}"):  # with some of it unread, it would be a reset
                    asked += connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\n\r\ndata: {"object": "half"}\n\n')

        answering = threading.Thread(target=answer_half)
        answering.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        events = ServerClient(url).events("x", {})
        assert next(events) == {"object": "half"}
        with pytest.raises(NoServer, match="cut"):
            next(events)
        answering.join()


def test_refusals_are_told_in_the_server_s_words(run: Run) -> None:
    """On standard error, with exit code 1."""
    assert "nobody" in run("agents", "show", "nobody", code=1)
    assert "dovecote: " in run("agents", "fork", "nobody", "otto", code=1)
    assert "after `list`" in run("agents", "--json", "list", code=2)


def test_without_a_server_one_line_says_what_to_do() -> None:
    """Exit code 3, whatever the command."""
    for url in ("http://127.0.0.1:9", "ftp://x", "http://127.0.0.1:nine", ""):
        for command in (["agents"], ["pool"], ["chat", "-m", "1"]):
            result = CliRunner().invoke(app, [*command, "--url", url])
            assert result.exit_code == 3
            assert "dovecote serve" in result.output
            assert result.output.count("\n") == 1


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never from the command line."""
    with Service(Access(KeyRing(lambda: parse_keys(f"boss:{KEY} admin\n")))) as url:
        monkeypatch.delenv("DOVECOTE_API_KEY", raising=False)
        refused = CliRunner().invoke(app, ["agents", "--url", url])
        assert refused.exit_code == 1
        monkeypatch.setenv("DOVECOTE_API_KEY", KEY)
        for place in (url, f"{url}/v1", f"{url}/", url.removeprefix("http://")):
            assert CliRunner().invoke(app, ["agents", "--url", place]).exit_code == 0
