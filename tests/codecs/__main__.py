"""What each codec costs in quality, on the embedded model: `nox -s codecs`.

Prints a Markdown table and, with --json FILE, writes what it is made of. One prefill serves all
codecs: the same computed K and V are sealed in a pool of each codec, decoded into rows of one slab,
and what the model makes of them is compared with a row that was never stored. Deterministic.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from dovecote_native import blas

if TYPE_CHECKING:
    from report import Findings

# Room for the longest context and what is scored after it.
CAPACITY = 4608


def measure(models_dir: Path) -> tuple[Findings, str]:
    """Everything, and where."""
    # One thread: sums are then added up in one order, however many cores there are.
    blas.activate(threads=1)
    from answers import measure_answers
    from machine import machine
    from reading import measure_reading
    from recall import measure_recall
    from report import Findings
    from stored_rows import StoredRows

    from dovecote_engine import load_model

    started = time.perf_counter()
    loaded = load_model("embedded", models_dir=models_dir)
    rows = StoredRows(loaded, CAPACITY)
    recall = measure_recall(rows, loaded)
    note("facts recalled", started)
    answers = measure_answers(rows, loaded)
    note("prompts answered", started)
    reading = measure_reading(rows, loaded)
    note("story read", started)
    return Findings(rows.bytes_a_token, answers, reading, recall), machine(loaded.id)


def note(text: str, started: float) -> None:
    """Say how far it is."""
    print(f"{time.perf_counter() - started:6.0f} s  {text}", file=sys.stderr)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        findings, where = measure(Path(folder))
    from report import table

    text = table(findings)
    if arguments.json:
        everything = {**asdict(findings), "table": text, "machine": where}
        arguments.json.write_text(json.dumps(everything, indent=2), encoding="utf-8")
    print(text, "", where, sep="\n")


if __name__ == "__main__":
    main()
