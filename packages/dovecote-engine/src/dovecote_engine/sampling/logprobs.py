"""Log probabilities of a sampled token and of the likeliest ones, from the model's own logits.

"Own": before penalties, biases, temperature and cuts, so that they say what the model believes and
not how it was sampled. Computed only for the rows that ask.

Does not know rows or texts. Engine thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import mlx.core as mx

from dovecote_engine.request import RankedToken, TokenLogprobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Ranking", "RankingDraft", "named"]

# OpenAI's stand-in for what is as good as impossible; JSON has no infinity.
_LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The sampled token's log probability; the likeliest tokens and theirs, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class RankingDraft:
    """A ranking that the batch's evaluation completes."""

    def __init__(self, logits: mx.array, token: mx.array, count: int) -> None:
        """`logits` [V] and `token` may be unevaluated; `count` is at most V."""
        wide = logits.astype(mx.float32)
        total = mx.logsumexp(wide)
        self._chosen = wide[token] - total
        self._ids = _likeliest(wide, count)
        self._logprobs = None if self._ids is None else wide[self._ids] - total

    @property
    def arrays(self) -> list[mx.array]:
        """What has to be evaluated before `read`."""
        return [each for each in (self._chosen, self._ids, self._logprobs) if each is not None]

    def read(self) -> Ranking:
        """The ranking. Of equal tokens the lower id goes first."""
        top: Iterable[tuple[int, float]] = ()
        if self._ids is not None and self._logprobs is not None:
            ids, values = cast("list[int]", self._ids.tolist()), self._logprobs.tolist()
            pairs = zip(ids, cast("list[float]", values), strict=True)
            top = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        chosen = _bounded(cast("float", self._chosen.item()))
        return Ranking(chosen, tuple((token, _bounded(value)) for token, value in top))


def _likeliest(logits: mx.array, count: int) -> mx.array | None:
    """The ids of the `count` likeliest, in any order; None for none."""
    if count == 0:
        return None
    return mx.argpartition(-logits, count - 1)[:count]


def _bounded(logprob: float) -> float:
    return max(min(logprob, 0.0), _LEAST_LOGPROB)


def named(token: int, ranking: Ranking, token_bytes: Callable[[int], bytes]) -> TokenLogprobs:
    """The ranking of a sampled token with the tokens' bytes, for those who know no ids."""
    top = tuple(RankedToken(each, token_bytes(each), logprob) for each, logprob in ranking.top)
    return TokenLogprobs(RankedToken(token, token_bytes(token), ranking.logprob), top)
