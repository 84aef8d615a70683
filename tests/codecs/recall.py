"""Facts from early in a long prompt, asked for at its end.

A sheet names a code for each of twenty people, then goes on with something else for a while, and at
last lists the codes again in another order. Each code of that list is asked for with the ones
before it in place: whether its digits are each the likeliest token, as a greedy completion of
`The code of Anna is` would have them, and how likely the code is as a whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from agreement import log_probabilities
from documents import story

if TYPE_CHECKING:
    from collections.abc import Callable

    from stored_rows import Numbers, StoredRows

    from dovecote_engine.models.loader import LoadedModel

SHEETS = 3
_PEOPLE = (
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas",
    "Karin", "Louis", "Maria", "Nora", "Oscar", "Paula", "Robert", "Sofia", "Thomas", "Vera",
)  # fmt: skip
# What stands before a code, the code, and what stands behind it.
_PROSE = ("The code of {} is", " {}", ".\n")
_CALL = ('{{"send_code": {{"to": "{}", "code": "', "{}", '"}}}}\n')
_SENTENCES_BEHIND = 30


@dataclass(frozen=True)
class Recall:
    """How many codes a row gave back, and the mean natural logarithm of their probabilities."""

    asked: int = 0
    right: int = 0
    log_probability: float = 0.0

    @property
    def mean_log_probability(self) -> float:
        """Of a whole code, in nats."""
        return self.log_probability / self.asked

    def __add__(self, other: Recall) -> Recall:
        return Recall(
            self.asked + other.asked,
            self.right + other.right,
            self.log_probability + other.log_probability,
        )


@dataclass(frozen=True)
class Sheet:
    """Token ids: what is stored, what is asked, and where the codes stand in the latter."""

    stored: tuple[int, ...]
    asked: tuple[int, ...]
    codes: tuple[range, ...]


def measure_recall(rows: StoredRows, loaded: LoadedModel) -> dict[str, list[Recall]]:
    """By the form of the sheets, of each row: the reference first, then the codecs."""
    encode = loaded.tokenizer.encode
    forms = {"sentences": _PROSE, "tool calls": _CALL}
    return {name: _of_form(rows, encode, form) for name, form in forms.items()}


def _of_form(
    rows: StoredRows, encode: Callable[[str], tuple[int, ...]], form: tuple[str, str, str]
) -> list[Recall]:
    totals = [Recall() for _ in range(rows.rows)]
    for seed in range(SHEETS):
        sheet = _sheet(encode, form, random.Random(seed))
        rows.compute(sheet.stored)
        rows.restore()
        logits = rows.score(len(sheet.stored), sheet.asked)
        totals = [total + _recall(sheet, row) for total, row in zip(totals, logits, strict=True)]
    return totals


def _sheet(
    encode: Callable[[str], tuple[int, ...]], form: tuple[str, str, str], chance: random.Random
) -> Sheet:
    before, code, behind = form
    codes = {person: str(chance.randrange(100, 1000)) for person in _PEOPLE}
    facts = [
        before.format(person) + code.format(codes[person]) + behind.format()
        for person in chance.sample(_PEOPLE, len(_PEOPLE))
    ]
    stored = f"The codes are these.\n\n{''.join(facts)}\n{_filler(chance)}\n\nAll codes again:\n"
    asked: list[int] = []
    places = []
    for person in chance.sample(_PEOPLE, len(_PEOPLE)):
        asked += encode(before.format(person))
        digits = encode(code.format(codes[person]))
        places.append(range(len(asked), len(asked) + len(digits)))
        asked += [*digits, *encode(behind.format())]
    return Sheet(encode(stored), tuple(asked), tuple(places))


def _filler(chance: random.Random) -> str:
    """A stretch of the story."""
    sentences = story().replace("\n\n", " ").split(". ")
    start = chance.randrange(len(sentences) - _SENTENCES_BEHIND)
    return ". ".join(sentences[start : start + _SENTENCES_BEHIND]) + "."


def _recall(sheet: Sheet, logits: Numbers) -> Recall:
    """From logits [T, V] of the asked tokens; a token is foretold one position before its own."""
    likely = log_probabilities(logits)
    right, total = 0, 0.0
    for place in sheet.codes:
        tokens = [sheet.asked[at] for at in place]
        foretold = likely[np.array(place) - 1]
        right += int((foretold.argmax(axis=-1) == tokens).all())
        total += float(foretold[range(len(tokens)), tokens].sum())
    return Recall(len(sheet.codes), right, total)
