"""What a sequence that joins or leaves costs the rows that run: copies counted, bytes compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_engine import Answers, assert_idle, build, greedy, reference

if TYPE_CHECKING:
    import numpy.typing as npt

    from dovecote_engine.engine import Engine

ROWS = 5


def _prompt(row: int) -> tuple[int, ...]:
    return tuple((5 * row + 7 * n) % 100 for n in range(20 + row))


class Watched:
    """An engine whose rows all decode; copies within its slab are noted."""

    def __init__(self, rows: int) -> None:
        self.engine: Engine = build(max_rows=8, gap_ratio=1e9)
        self.answers = Answers()
        self.copied_tokens = 0
        self.slab: Any = self.engine._rows
        self.slab.reserve(8, 512)  # growth is another matter: see test_scheduler.py
        self._note("move_row", 1)
        self._note("swap_rows", 2)
        for row in range(rows):
            self.submit(row)
        self.step_until_decoding(rows)
        self.copied_tokens = 0

    def _note(self, name: str, copies: int) -> None:
        run = getattr(self.slab, name)

        def noted(one: int, other: int, tokens: int) -> None:
            self.copied_tokens += copies * tokens
            run(one, other, tokens)

        setattr(self.slab, name, noted)

    def submit(self, row: int) -> None:
        self.engine.submit(greedy(f"r{row}", _prompt(row), 60))

    def step_until_decoding(self, rows: int) -> None:
        while self.engine._scheduler.decoding != rows:
            self.answers.step(self.engine)

    def rows(self) -> dict[str, npt.NDArray[np.float32]]:
        """What each request's row holds [planes, H, T, D], by the request's id."""
        self.slab.settle()
        planes = [np.array(plane) for plane in (*self.slab.keys, *self.slab.values)]
        sequences = self.engine._scheduler.rows
        return {
            each.id: np.stack([plane[each.row, :, : each.length] for plane in planes])
            for each in sequences
        }

    def addresses(self) -> list[int]:
        planes: list[Any] = [*self.slab.keys, *self.slab.values]
        return [np.asarray(memoryview(each)).__array_interface__["data"][0] for each in planes]

    def finish(self) -> None:
        while self.engine.wait(0):
            self.answers.step(self.engine)
        assert_idle(self.engine)
        for name, answer in self.answers.items():
            if answer.reason != "cancelled":
                assert answer.tokens == reference(_prompt(int(name[1:])), 60)


def _assert_untouched(
    before: dict[str, npt.NDArray[np.float32]], after: dict[str, npt.NDArray[np.float32]]
) -> None:
    """Everybody who is in both has what it had, bit by bit, and more behind it."""
    for name in before.keys() & after.keys():
        length = before[name].shape[2]
        assert np.array_equal(after[name][:, :, :length], before[name])


def test_a_row_that_joins_copies_nothing() -> None:
    """It fills its own row; the others and the planes stay where and what they are."""
    watched = Watched(ROWS)
    before, places = watched.rows(), watched.addresses()
    watched.submit(ROWS)
    watched.step_until_decoding(ROWS + 1)
    after = watched.rows()
    assert len(before) == ROWS
    assert len(after) == ROWS + 1
    _assert_untouched(before, after)
    assert watched.copied_tokens == 0
    assert watched.addresses() == places
    watched.finish()


@pytest.mark.parametrize("leaving", range(ROWS))
def test_a_row_that_leaves_moves_the_last_one_at_most(leaving: int) -> None:
    """So much is copied as that one holds, and nothing if it is the last itself that leaves."""
    watched = Watched(ROWS)
    before, places = watched.rows(), watched.addresses()
    *_, last = watched.engine._scheduler.rows
    row = watched.engine._scheduler.rows[leaving]
    watched.engine.cancel(row.id)
    watched.step_until_decoding(ROWS - 1)
    after = watched.rows()
    assert before.keys() - after.keys() == {row.id}
    _assert_untouched(before, after)
    assert watched.copied_tokens == (0 if row is last else last.length)
    assert watched.addresses() == places
    watched.finish()
