"""The figures of the README's table, measured over HTTP on this machine: `nox -s figures`.

Prints a Markdown table and, with --json FILE, writes what it is made of. Each server runs alone.
Times are the client's own, taken around the stream; hot and restarted turns alternate in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))

from conversation import MODEL, client_of
from machine import machine
from server_process import ServerProcess

# Headers wait for the first token, however late: they carry the server's own timings.
OPTIONS = ("--pool-size", "512MiB", "--keepalive", "600")
HISTORY_TOKENS = 1900
AGENTS = (1, 3, 5)
ROUNDS = 5


@dataclass(frozen=True)
class Turn:
    """One streamed request, timed by the client."""

    first_token_s: float
    decode_tokens_per_s: float
    prompt_tokens: int
    cached_tokens: int
    prefill_tokens_per_s: float
    restore_ms: float
    other_ms: float
    """Of the time to the first token: neither restore nor prefill."""


def numbered_text(lines: int, start: int = 0) -> str:
    """Text of about 15 tokens a line in which no two lines are equal."""
    return "\n".join(
        f"Item {n}: a jar of honey, {n * 7 % 31} pears and a map."
        for n in range(start, start + lines)
    )


def ask(url: str, messages: list[dict[str, str]], max_tokens: int) -> Turn:
    """Stream one answer at temperature 0 and time it."""
    request = {
        "model": MODEL,
        "messages": messages,
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with client_of(url) as client:
        create: Any = client.chat.completions.with_raw_response.create
        started = time.perf_counter()
        response = create(**request)
        arrivals, usage = [], None
        for chunk in response.parse():
            if chunk.choices and chunk.choices[0].delta.content:
                arrivals.append(time.perf_counter())
            usage = chunk.usage or usage
    return turn(started, arrivals, usage, server_timing(response.headers["Server-Timing"]))


def turn(started: float, arrivals: list[float], usage: Any, timings: dict[str, float]) -> Turn:
    cached = usage.prompt_tokens_details.cached_tokens
    computed = usage.prompt_tokens - cached
    between = arrivals[-1] - arrivals[0]
    return Turn(
        first_token_s=arrivals[0] - started,
        decode_tokens_per_s=(len(arrivals) - 1) / between if between else 0.0,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=cached,
        prefill_tokens_per_s=computed / (timings["prefill"] / 1000),
        restore_ms=timings["restore"],
        other_ms=1000 * (arrivals[0] - started) - timings["restore"] - timings["prefill"],
    )


def server_timing(header: str) -> dict[str, float]:
    """Milliseconds by name."""
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}


def compute_speed(cache_dir: Path, *options: str, prompt_lines: int, tokens: int) -> Turn:
    """Prefill and decode of one request on a server that has cached nothing."""
    messages = [{"role": "user", "content": numbered_text(prompt_lines) + "\nTell me a story."}]
    with ServerProcess(cache_dir, (*OPTIONS, "--memory-only", *options)) as server:
        ask(server.url, [{"role": "user", "content": "Hello, how are you?"}], 4)
        return ask(server.url, messages, tokens)


def resume(cache_dir: Path) -> dict[str, list[Turn]]:
    """Turns at about HISTORY_TOKENS: cold, then hot and restarted ones in alternation."""
    history = [
        {"role": "user", "content": numbered_text(HISTORY_TOKENS // 20)},
        {"role": "assistant", "content": "I have read the list."},
    ]
    turns: dict[str, list[Turn]] = {"cold": [], "hot": [], "restarted": []}
    with ServerProcess(cache_dir, OPTIONS) as server:
        ask(server.url, [{"role": "user", "content": "Hello, how are you?"}], 4)
        turns["cold"].append(ask(server.url, [*history, question(0)], 8))
        for number in range(ROUNDS):
            turns["hot"].append(ask(server.url, [*history, question(2 * number + 1)], 8))
            server.kill()
            server.start()
            turns["restarted"].append(ask(server.url, [*history, question(2 * number + 2)], 8))
    return turns


def together(cache_dir: Path) -> dict[int, float]:
    """Tokens a second of 1, 3 and 5 agents at once over whole requests that mostly decode."""
    rates: dict[int, list[float]] = {count: [] for count in AGENTS}
    with ServerProcess(cache_dir, (*OPTIONS, "--memory-only")) as server:
        ask(server.url, [{"role": "user", "content": "Hello, how are you?"}], 4)
        for number in range(3):
            for count in AGENTS:
                texts = [f"Tell me a long story, number {number}{count}{n}." for n in range(count)]
                rates[count].append(tokens_a_second(server.url, texts))
    return {count: statistics.median(some) for count, some in rates.items()}


def tokens_a_second(url: str, texts: list[str]) -> float:
    """Of answers that end at their limit, all at once, from the first byte sent to the last."""

    def answer(text: str) -> int:
        body: dict[str, Any] = {"logit_bias": {"2": -100, "0": -100}}
        with client_of(url) as client:
            create: Any = client.chat.completions.create
            messages = [{"role": "user", "content": text}]
            reply = create(
                model=MODEL, messages=messages, temperature=0, max_tokens=96, extra_body=body
            )
        tokens: int = reply.usage.completion_tokens
        return tokens

    with ThreadPoolExecutor(len(texts)) as pool:
        began = time.perf_counter()
        return sum(pool.map(answer, texts)) / (time.perf_counter() - began)


def steps() -> str:
    """The table of `tests/steps.py`, which runs the engine without HTTP."""
    script = Path(__file__).with_name("steps.py")
    command = [sys.executable, str(script)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def question(number: int) -> dict[str, str]:
    """A user's message that makes about 50 new tokens; no two begin with the same word."""
    text = f"{number} is my number today. Please tell me in one short sentence what the list says "
    text += (
        f"about item {number}, whether honey is in it, and how many pears there are beside the map."
    )
    return {"role": "user", "content": text}


def bytes_a_token(cache_dir: Path, codec: str) -> float:
    """What a token takes in the pool file: a frame over the tokens of its block."""
    with ServerProcess(cache_dir, (*OPTIONS, "--codec", codec)) as server:
        text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    (frame_bytes,) = re.findall(r"^dovecote_pool_frame_bytes (\S+)$", text, re.MULTILINE)
    return float(frame_bytes) / 32


def median(turns: list[Turn], name: str) -> float:
    return statistics.median(float(getattr(turn, name)) for turn in turns)


def measure() -> dict[str, Any]:
    """All figures, as plain values."""
    with tempfile.TemporaryDirectory() as name:
        cache_dir = Path(name)
        with_blas = [compute_speed(cache_dir, prompt_lines=16, tokens=64) for _ in range(3)]
        without = [compute_speed(cache_dir, "--no-blas", prompt_lines=16, tokens=32)]
        turns = resume(cache_dir)
        sizes = {codec: bytes_a_token(cache_dir, codec) for codec in ("exact", "q8", "q4")}
        rates = together(cache_dir)
    return {
        "with_blas": [asdict(turn) for turn in with_blas],
        "without_blas": [asdict(turn) for turn in without],
        **{kind: [asdict(turn) for turn in some] for kind, some in turns.items()},
        "bytes_a_token": sizes,
        "tokens_a_second_together": rates,
        "table": table(with_blas, without, turns, sizes),
        "scaling": scaling(rates),
        "steps": steps(),
        "machine": where(),
    }


def table(
    with_blas: list[Turn],
    without: list[Turn],
    turns: dict[str, list[Turn]],
    sizes: dict[str, float],
) -> str:
    """The README's table."""
    ttft = {kind: median(some, "first_token_s") for kind, some in turns.items()}
    prompt = median(turns["hot"], "prompt_tokens")
    new = prompt - median(turns["hot"], "cached_tokens")
    rows = [
        ("prefill, reference BLAS", f"{median(without, 'prefill_tokens_per_s'):.0f} tokens/s"),
        ("prefill, OpenBLAS", f"{median(with_blas, 'prefill_tokens_per_s'):.0f} tokens/s"),
        ("decode, reference BLAS", f"{median(without, 'decode_tokens_per_s'):.1f} tokens/s"),
        ("decode, OpenBLAS", f"{median(with_blas, 'decode_tokens_per_s'):.1f} tokens/s"),
        (f"first token, cold, {prompt:.0f} tokens", f"{ttft['cold']:.2f} s"),
        (f"first token, hot, {new:.0f} of them new", f"{ttft['hot']:.2f} s"),
        ("first token, after SIGKILL and restart", f"{ttft['restarted']:.2f} s"),
        ("all of it but restore and prefill", f"{median(turns['hot'], 'other_ms'):.0f} ms"),
        (
            "prefill of a cold prompt",
            f"{median(turns['cold'], 'prefill_tokens_per_s'):.0f} tokens/s",
        ),
        ("restore of the cached tokens", f"{median(turns['restarted'], 'restore_ms'):.0f} ms"),
        *((f"bytes a token on disk, `{codec}`", f"{size:,.0f}") for codec, size in sizes.items()),
    ]
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def scaling(rates: dict[int, float]) -> str:
    """Agents at once, whole requests over HTTP."""
    rows = [f"| {n} | {rate:.1f} | {rate / rates[1]:.2f} |" for n, rate in rates.items()]
    return "\n".join(["| agents | tokens/s | of one's |", "|---|---|---|", *rows])


def where() -> str:
    """Where and what was measured."""
    core = os.environ.get("OPENBLAS_CORETYPE")
    forced = f", OpenBLAS told to be {core}" if core else ""
    return f"{machine(MODEL + ' in float32')}{forced}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    arguments = parser.parse_args()
    figures = measure()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    print(figures["table"], figures["scaling"], figures["steps"], figures["machine"], sep="\n\n")


if __name__ == "__main__":
    main()
