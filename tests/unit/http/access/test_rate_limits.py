from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest

from dovecote_http import Access, ApiError, KeyRing, RateLimits, parse_keys
from dovecote_http.access.rate_limits import MOST_CALLERS, Allowance

if TYPE_CHECKING:
    from tests.unit.http.conftest import Start

ADA, BOB = "ada-0123456789abcdef", "bob-0123456789abcdef"
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


class Clock:
    """A clock that is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def refusals(allowance: Allowance, count: int) -> int:
    """How many of so many requests are refused."""
    refused = 0
    for _ in range(count):
        try:
            allowance.take_request()
        except ApiError as error:
            assert (error.status, error.body.code) == (429, "rate_limit_exceeded")
            refused += 1
    return refused


def test_a_minute_s_requests_may_come_at_once_and_then_as_they_refill() -> None:
    clock = Clock()
    limits = RateLimits(requests_per_minute=6, clock=clock)
    assert refusals(limits.of("ada"), 8) == 2
    assert refusals(limits.of("bob"), 6) == 0
    clock.now_s += 20
    assert refusals(limits.of("ada"), 3) == 1
    clock.now_s += 3600
    assert refusals(limits.of("ada"), 7) == 1


def test_a_debt_of_tokens_is_paid_before_the_next_request() -> None:
    clock = Clock()
    allowance = RateLimits(tokens_per_minute=60, clock=clock).of("ada")
    allowance.take_request()
    allowance.take_tokens(90)
    with pytest.raises(ApiError) as caught:
        allowance.take_request()
    assert caught.value.headers["Retry-After"] == "31"
    assert allowance.headers() == {
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m30s",
    }
    clock.now_s += 31
    allowance.take_request()


def test_what_is_refused_takes_nothing() -> None:
    clock = Clock()
    allowance = RateLimits(1, 60, clock).of("ada")
    allowance.take_request()
    assert refusals(allowance, 100) == 100
    clock.now_s += 60
    assert refusals(allowance, 1) == 0


def test_times_are_written_as_openai_writes_them() -> None:
    clock = Clock()
    allowance = RateLimits(requests_per_minute=600, clock=clock).of("ada")
    allowance.take_request()
    assert allowance.headers()["x-ratelimit-reset-requests"] == "100ms"
    refusals(allowance, 64)
    assert allowance.headers()["x-ratelimit-reset-requests"] == "6.5s"


def test_callers_are_remembered_up_to_a_bound() -> None:
    """The longest silent one goes first."""
    limits = RateLimits(requests_per_minute=1, clock=Clock())
    for number in range(MOST_CALLERS):
        limits.of(str(number)).take_request()
    limits.of("0")
    limits.of("one more")
    assert len(limits._callers) == MOST_CALLERS
    assert refusals(limits.of("0"), 1) == 1
    assert refusals(limits.of("1"), 1) == 0


async def test_each_key_has_its_own_limit(start: Start) -> None:
    """429 before the engine hears of it, with OpenAI's headers, on streams too; GET is free."""
    ring = KeyRing(lambda: parse_keys(f"ada:{ADA}\nbob:{BOB}"))
    service = await start(access=Access(keys=ring, limits=RateLimits(requests_per_minute=2)))
    statuses = []
    for key in (ADA, ADA, ADA, BOB):
        body = {**CHAT, "stream": key is ADA}
        async with service.post(body, Authorization=f"Bearer {key}") as response:
            statuses.append(response.status)
            assert response.headers["x-ratelimit-limit-requests"] == "2"
            text = await response.text()
            if response.status == 429:
                assert '"rate_limit_exceeded"' in text
                assert 1 <= int(response.headers["Retry-After"]) <= 30
                assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert statuses == [200, 200, 429, 200]
    assert len(service.engine.requests) == 3
    async with service.session.get("/models", headers={"x-api-key": ADA}) as response:
        assert response.status == 200


async def test_tokens_of_prompt_and_answer_count(start: Start) -> None:
    """Two of the prompt (a character each) and two of the answer: a third is left in debt."""
    service = await start(access=Access(limits=RateLimits(tokens_per_minute=7)))
    remaining = []
    for _ in range(3):
        async with service.post(CHAT) as response:
            remaining.append((response.status, response.headers["x-ratelimit-remaining-tokens"]))
    assert remaining == [(200, "3"), (200, "0"), (429, "0")]


async def test_the_openai_client_sees_its_own_error(start: Start) -> None:
    service = await start(access=Access(limits=RateLimits(requests_per_minute=1)))
    await service.openai.chat.completions.create(model=service.engine.model.id, **CHAT)  # type: ignore[call-overload]
    with pytest.raises(openai.RateLimitError) as caught:
        await service.openai.chat.completions.create(model=service.engine.model.id, **CHAT)  # type: ignore[call-overload]
    assert caught.value.code == "rate_limit_exceeded"
