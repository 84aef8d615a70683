"""Greedy answers to long prompts whose K and V came back from the pool."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from agreement import Agreement, agreement
from documents import documents
from stored_rows import Deviation, common_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stored_rows import Numbers, StoredRows

    from dovecote_engine.models.loader import LoadedModel

ANSWER_TOKENS = 32


@dataclass(frozen=True)
class Answers:
    """One row's answers beside those of the row that was never stored."""

    prompts: int = 0
    tokens: int = 0
    before_divergence: int = 0
    equal: int = 0
    teacher_forced: Agreement = field(default_factory=Agreement)
    keys: Deviation = field(default_factory=Deviation)
    values: Deviation = field(default_factory=Deviation)

    def __add__(self, other: Answers) -> Answers:
        return Answers(
            self.prompts + other.prompts,
            self.tokens + other.tokens,
            self.before_divergence + other.before_divergence,
            self.equal + other.equal,
            self.teacher_forced + other.teacher_forced,
            self.keys + other.keys,
            self.values + other.values,
        )


def measure_answers(rows: StoredRows, loaded: LoadedModel) -> list[Answers]:
    """Of each codec, over all questions to all documents."""
    totals = [Answers() for _ in rows.codecs]
    for document in documents():
        prompts = [loaded.tokenizer.render(chat) for chat in document.chats]
        history = min(common_prefix(prompts[0], prompt) for prompt in prompts[1:])
        rows.compute(prompts[0][:history])
        rows.restore()
        for at, codec in enumerate(rows.codecs):
            keys, values = rows.deviation(codec)
            totals[at] = replace(
                totals[at], keys=totals[at].keys + keys, values=totals[at].values + values
            )
        for prompt in prompts:
            found = _answer(rows, prompt, history, loaded.eos_ids)
            totals = [total + one for total, one in zip(totals, found, strict=True)]
    return totals


def _answer(
    rows: StoredRows, prompt: Sequence[int], history: int, eos_ids: frozenset[int]
) -> list[Answers]:
    """The question and the answer are computed; only the history was stored."""
    first = rows.score(history, prompt[history:])[:, -1]
    written = _greedy(rows, len(prompt), first)
    reference = _until_end(written[0], eos_ids)
    forced = _forced(rows, len(prompt), first, reference)
    return [_compare(reference, row, logits, forced[0]) for row, logits in _pairs(written, forced)]


def _pairs(written: list[list[int]], forced: Numbers) -> list[tuple[list[int], Numbers]]:
    return list(zip(written[1:], forced[1:], strict=True))


def _greedy(rows: StoredRows, length: int, logits: Numbers) -> list[list[int]]:
    """The answer of each row, all of them in one batch."""
    written = [[int(token)] for token in logits.argmax(axis=-1)]
    for step in range(ANSWER_TOKENS - 1):
        logits = rows.decode(length + step, [row[-1] for row in written])
        for row, token in zip(written, logits.argmax(axis=-1), strict=True):
            row.append(int(token))
    return written


def _until_end(tokens: list[int], eos_ids: frozenset[int]) -> list[int]:
    ends = (at + 1 for at, token in enumerate(tokens) if token in eos_ids)
    return tokens[: next(ends, len(tokens))]


def _forced(rows: StoredRows, length: int, first: Numbers, reference: list[int]) -> Numbers:
    """Logits [R, T, V] of each token of the reference's answer, given those before it."""
    if len(reference) == 1:
        return first[:, None]
    return np.concatenate([first[:, None], rows.score(length, reference[:-1])], axis=1)


def _compare(reference: list[int], row: list[int], found: Numbers, expected: Numbers) -> Answers:
    same = common_prefix(reference, row)
    return Answers(
        prompts=1,
        tokens=len(reference),
        before_divergence=same,
        equal=int(same == len(reference)),
        teacher_forced=agreement(expected, found, reference),
    )
