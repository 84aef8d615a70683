"""Tables of batching, resume, memory and parts, which a session prints from the latest results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.figures import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dashboard.runs import Run

__all__ = ["as_sections", "as_tables"]

Row = tuple[str, ...]
_STEP = "batching.Step.track_milliseconds_a_token"
# What is promised of a value: what to say of it, and the most that it may be.
_PROMISED = {
    "batching.Batching.track_three_agents": ("3 agents against 1", 1 / 1.7),
    "batching.Batching.track_five_agents": ("5 agents against 1", 1 / 2.7),
    "resume.FirstTokenCost.track_restarted_against_hot": ("restarted against hot", 1.2),
}


def as_tables(run: Run) -> str:
    """Markdown. What the run did not measure is left out."""
    load = "unknown" if run.load is None else f"{run.load:.2f} a processor"
    head = f"Commit {run.name}, measured {run.measured}, load {load}."
    return "\n\n".join([head, *as_sections(run)])


def as_sections(run: Run) -> list[str]:
    """The tables alone, each with its title."""
    parts = [
        _table("Batching", ("agents", "ms a token", "tokens/s", "times one agent"), _batching(run)),
        _table("Promises", ("what", "found", "promised"), _promises(run)),
        _table("Resume", ("what", "of", "time"), _resume(run)),
        _table("Memory", ("what", "of", "found"), _memory(run)),
        _table("Parts", ("what", "of", "takes"), _parts(run)),
    ]
    return [part for part in parts if part]


def _table(title: str, head: Row, rows: Iterator[Row]) -> str:
    """Empty if there are no rows."""
    lines = [_line(row) for row in rows]
    if not lines:
        return ""
    return "\n".join([f"### {title}", "", _line(head), _line(["---"] * len(head)), *lines])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _batching(run: Run) -> Iterator[Row]:
    """Throughput of so many agents at once."""
    if _STEP not in run.benchmarks:
        return
    values = run.benchmarks[_STEP].values
    alone = values.get(("1",))
    for (agents,), ms in values.items():
        gain = f"{alone / ms:.2f}" if alone else ""
        yield agents, f"{ms:.1f}", f"{1000 / ms:.1f}", gain


def _promises(run: Run) -> Iterator[Row]:
    for name, (what, most) in _PROMISED.items():
        if name in run.benchmarks:
            (value,) = run.benchmarks[name].values.values()
            if name.startswith("batching"):
                yield what, f"{1 / value:.2f} times the tokens/s", f"at least {1 / most:.1f}"
            else:
                yield what, f"{value:.2f} times the time", f"at most {most:.1f}"


def _resume(run: Run) -> Iterator[Row]:
    yield from _values(run, "resume.SaveAndLoad.time_save", "save", "tokens")
    yield from _values(run, "resume.SaveAndLoad.time_load", "load", "tokens")
    yield from _values(run, "resume.Restore.track_milliseconds", "restore in the engine", "tokens")
    yield from _values(run, "resume.FirstToken.track_milliseconds", "first token", "turn")


def _memory(run: Run) -> Iterator[Row]:
    for name, what in (("slab", "slab"), ("resident", "process grew by"), ("pool", "pool")):
        yield from _values(run, f"memory.Agents.track_{name}", what, "agents")
    yield from _values(run, "memory.Padding.track_fraction", "padding", "tokens")
    cache = "memory.CacheAndModel.track_cache_against_weights"
    yield from _values(run, cache, "2,048 tokens against the weights", "codec")
    yield from _values(run, "memory.Theory.track_frames_against_theory", "frames", "codec")
    yield from _values(run, "memory.Theory.track_disk_against_count", "disk", "codec")
    yield from _values(run, "memory.Turn.track_bytes_written", "written a turn", "")


_PARTS = {
    "index.Open.time_open": ("open a pool of 100,000 frames, page cache", ""),
    "index.Hash.track_nanoseconds_a_token": ("hash", "a token"),
    "index.Match.track_nanoseconds_a_token": ("match, the hash included", "a token"),
    "index.Reserve.track_reserve_and_release_of_a_block": ("reserve and release", "a block"),
    "index.Reserve.track_pin_and_unpin_of_a_block": ("match, pin and unpin", "a block"),
    "batching.Slab.time_join": ("join the slab", "a row of 1,024 tokens"),
    "batching.Slab.time_leave": ("leave the slab", "a row of 1,024 tokens"),
    "serving.Http.track_microseconds_a_token": ("HTTP, a stream", "a token"),
}


def _parts(run: Run) -> Iterator[Row]:
    """What single operations take."""
    for name, (what, of) in _PARTS.items():
        if (benchmark := run.benchmarks.get(name)) is not None:
            for choice, value in benchmark.values.items():
                yield what, " ".join(choice) or of, shown(value, benchmark.unit)


def _values(run: Run, name: str, what: str, of: str) -> Iterator[Row]:
    """A row for each value; numbers name what they count."""
    benchmark = run.benchmarks.get(name)
    if benchmark is None:
        return
    for choice, value in benchmark.values.items():
        told = " ".join(choice)
        yield what, f"{told} {of}" if told.isdigit() else told, shown(value, benchmark.unit)
