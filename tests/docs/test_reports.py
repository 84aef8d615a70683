from __future__ import annotations

from pathlib import Path

import pytest
from reports.__main__ import ROOT, pages
from reports.data import Data
from reports.performance import performance
from reports.production import production


@pytest.mark.parametrize("path", pages(ROOT), ids=lambda path: path.name)
def test_a_generated_page_is_what_the_data_make_of_it(path: Path) -> None:
    """`nox -s report` would change nothing."""
    assert path.read_text(encoding="utf-8") == pages(ROOT)[path]


def test_pages_without_data_say_so() -> None:
    """What was not measured is not made up."""
    assert performance(Data()).count("Not measured yet.") == 4
    assert production(Data()).count("Not measured yet.") == 4
