"""What became of one request: plain values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RequestResult", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts that the server told. `cached` is None where it tells none."""

    prompt: int
    completion: int
    cached: int | None


@dataclass(frozen=True, slots=True)
class RequestResult:
    """One request with all its attempts. Times are seconds on the monotonic clock.

    `status` is that of the last attempt, 0 if no response came; `error` is None exactly if a whole
    answer came. `refusals` are the statuses of the attempts before, each of which was told to wait;
    `retry_afters` what that header said at each 429 and 503, None if it was not there.
    """

    agent: str
    started_s: float
    ended_s: float
    status: int
    first_token_s: float | None = None
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None
    refusals: tuple[int, ...] = ()
    retry_afters: tuple[str | None, ...] = ()

    @property
    def is_answered(self) -> bool:
        """A whole answer came."""
        return self.error is None

    @property
    def latency_s(self) -> float:
        """From the first attempt's start to the answer's end, back-off included."""
        return self.ended_s - self.started_s

    @property
    def time_to_first_token_s(self) -> float | None:
        """From the first attempt's start to the first text."""
        return None if self.first_token_s is None else self.first_token_s - self.started_s
