"""A server process over a scripted engine, for the tests of shutdown.

Usage: serve_scripted.py DRAIN_S [loading]. A line on standard input releases held requests.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import structlog

from dovecote_http import EngineBridge, HttpSettings, log_json_lines, make_app, serve
from tests.unit.http.scripted_engine import Script, ScriptedEngine


def _release_on_input(engine: ScriptedEngine) -> None:
    sys.stdin.readline()
    engine.release()


def _factory() -> ScriptedEngine:
    if "loading" in sys.argv:
        structlog.get_logger("scripted").info("loading")
        threading.Event().wait()
    engine = ScriptedEngine(Script(holds_after=1))
    threading.Thread(target=_release_on_input, args=(engine,), daemon=True).start()
    return engine


if __name__ == "__main__":
    log_json_lines(sys.stdout)
    app = make_app(EngineBridge(_factory), HttpSettings(drain_s=float(sys.argv[1])))
    sys.exit(asyncio.run(serve(app, port=0)))
