"""An aiohttp client that asks, follows the stream, and comes back later where it is told to.

Only 429 and 503 are tried again, after the time that the server names: a 5xx of another kind and a
broken stream are results, not noise to be smoothed away.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from load.records import RequestResult, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

__all__ = ["Ask", "BackOff", "LoadClient"]

_COME_BACK = (429, 503)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to make."""

    agent: str
    messages: Sequence[Mapping[str, str]]
    max_tokens: int = 16
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackOff:
    """How often a refused request is tried again, and how long one waits at most each time."""

    attempts: int = 1
    longest_s: float = 30.0

    def wait_s(self, retry_after: str | None) -> float:
        """What to wait after a refusal: what the server says, within bounds."""
        try:
            told = float(retry_after or 1.0)
        except ValueError:
            told = 1.0
        return min(max(told, 0.1), self.longest_s)


class _BrokenAnswerError(Exception):
    """The answer did not come whole."""


@dataclass
class _Answer:
    """A stream as far as it has come."""

    pieces: list[str] = field(default_factory=list)
    first_token_s: float | None = None
    finish_reason: str | None = None
    usage: Usage | None = None

    def take(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise _BrokenAnswerError(f"error in the stream: {chunk['error'].get('message')}")
        if chunk.get("usage"):
            self.usage = _usage(chunk["usage"])
        for choice in chunk.get("choices", ()):
            piece = choice.get("delta", {}).get("content")
            if piece:
                self.first_token_s = self.first_token_s or time.monotonic()
                self.pieces.append(piece)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason


class LoadClient:
    """Asks one server. Use as an async context manager; any number of calls at once."""

    def __init__(self, url: str, model: str, *, key: str = "any", timeout_s: float = 600.0) -> None:
        self._url = url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._model = model
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            headers={"Authorization": f"Bearer {key}"},
        )
        self.in_flight = 0
        self.most_in_flight = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._session.close()

    async def ask(self, ask: Ask, back_off: BackOff = BackOff()) -> RequestResult:
        """The result, whatever it is: never raises for what the server does."""
        started = time.monotonic()
        refusals: tuple[int, ...] = ()
        told: tuple[str | None, ...] = ()
        while True:
            result, retry_after = await self._attempt(ask)
            if result.status in _COME_BACK:
                told += (retry_after,)
            if result.status not in _COME_BACK or len(refusals) + 1 >= back_off.attempts:
                return replace(result, started_s=started, refusals=refusals, retry_afters=told)
            refusals += (result.status,)
            await asyncio.sleep(back_off.wait_s(retry_after))

    async def _attempt(self, ask: Ask) -> tuple[RequestResult, str | None]:
        started = time.monotonic()
        answer, status, error, retry_after = _Answer(), 0, None, None
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with self._session.post(
                self._url, json=self._body(ask), headers={"X-Agent-ID": ask.agent}
            ) as response:
                status, retry_after = response.status, response.headers.get("Retry-After")
                if status == 200:
                    await _follow(response, answer)
                else:
                    error = f"{status}: {(await response.text())[:300]}"
        except (aiohttp.ClientError, TimeoutError, ValueError, _BrokenAnswerError) as raised:
            error = f"{type(raised).__name__}: {raised}"
        finally:
            self.in_flight -= 1
        result = RequestResult(
            agent=ask.agent,
            started_s=started,
            ended_s=time.monotonic(),
            status=status,
            first_token_s=answer.first_token_s,
            text="".join(answer.pieces),
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            error=error,
        )
        return result, retry_after

    def _body(self, ask: Ask) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": list(ask.messages),
            "max_tokens": ask.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **ask.extra,
        }


async def _follow(response: aiohttp.ClientResponse, answer: _Answer) -> None:
    """Takes the stream to its end. Raises: _BrokenAnswerError if it ends before its [DONE]."""
    async for data in _data_lines(response):
        if data == "[DONE]":
            if answer.finish_reason is None:
                raise _BrokenAnswerError("[DONE] without a finish_reason")
            return
        answer.take(json.loads(data))
    raise _BrokenAnswerError("the stream ended before its [DONE]")


async def _data_lines(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in response.content:
        text = line.decode().rstrip("\r\n")
        if text.startswith("data:"):
            yield text.removeprefix("data:").strip()


def _usage(body: dict[str, Any]) -> Usage:
    details = body.get("prompt_tokens_details") or {}
    return Usage(body["prompt_tokens"], body["completion_tokens"], details.get("cached_tokens"))
