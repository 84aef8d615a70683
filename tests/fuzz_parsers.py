"""Looks for inputs that break the parsers of `tests/support/parsers.py`.

    python tests/fuzz_parsers.py [SECONDS] [NAME ...]

Each parser runs for so long in a process of its own: guided by the branches that it takes where
atheris (libFuzzer) is installed, else over random mutations. An input that breaks one is written to
`fuzz-NAME-...` in the working directory and ends the run with 1: fix the parser, and add the input
to its seeds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))

DEFAULT_SECONDS = 30


def main() -> int:
    """Fuzzes the named parsers, or all, one after the other."""
    from parsers import TARGETS

    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_SECONDS
    broken = [name for name in sys.argv[2:] or TARGETS if not _holds(name, seconds)]
    print("broken: " + ", ".join(broken) if broken else "all parsers held")
    return bool(broken)


def _holds(name: str, seconds: int) -> bool:
    way = "guided" if importlib.util.find_spec("atheris") else "random"
    print(f"{name}: {way}, {seconds} s", flush=True)
    call = (sys.executable, __file__, way, name, str(seconds))
    return subprocess.run(call, check=False).returncode == 0


def _guided(name: str, seconds: int) -> None:
    """Runs libFuzzer in this process, and ends it."""
    import atheris  # type: ignore[import-untyped, unused-ignore]

    with atheris.instrument_imports(include=["dovecote_http", "dovecote_cache", "dovecote_engine"]):
        from parsers import TARGETS, mutations, seeds

    folder = Path(f".fuzz/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    for raw in (*seeds(name), *mutations(name, 200, seed=0)):
        (folder / hashlib.sha256(raw).hexdigest()[:16]).write_bytes(raw)
    options = (f"-max_total_time={seconds}", "-max_len=65536", "-rss_limit_mb=2048", "-timeout=10")
    prefix = f"-artifact_prefix=fuzz-{name}-"
    atheris.Setup(
        [sys.argv[0], str(folder), *options, prefix, "-verbosity=0", "-print_final_stats=1"],
        TARGETS[name],
    )
    atheris.Fuzz()


def _random(name: str, seconds: int) -> None:
    """Runs mutations until the time is over."""
    from parsers import TARGETS, mutations

    ends_s, runs = time.monotonic() + seconds, 0
    while time.monotonic() < ends_s:
        for raw in mutations(name, 100, seed=runs):
            try:
                TARGETS[name](raw)
            except BaseException:
                Path(f"fuzz-{name}-{hashlib.sha256(raw).hexdigest()[:16]}").write_bytes(raw)
                raise
        runs += 100
    print(f"{runs} inputs")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["guided", name, seconds]:
            _guided(name, int(seconds))
        case ["random", name, seconds]:
            _random(name, int(seconds))
        case _:
            sys.exit(main())
