"""Many agents at once: no error, each its own answer, in time, and from the cache."""

from __future__ import annotations

from typing import Any

import pytest
from load.scenarios import isolation, normal, rapid, turns

pytestmark = [pytest.mark.stress, pytest.mark.timeout(3600)]


def test_ten_agents_ask_rapidly_without_an_error(play: Any) -> None:
    assert play(rapid).unmet == []


def test_each_answer_belongs_to_its_agent(play: Any) -> None:
    assert play(isolation).unmet == []


def test_normal_load_is_answered_soon(play: Any) -> None:
    assert play(normal).unmet == []


def test_ten_turns_come_from_the_cache(play: Any) -> None:
    assert play(turns).unmet == []
