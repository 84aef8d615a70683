"""Disks that are full, read-only, taken or crowded: the server says so in one line, or copes."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conversation import Conversation
from metrics import metrics
from server_process import ServerProcess

MIB = 1 << 20
POOL_MIB = 128
POOL = ("--pool-size", f"{POOL_MIB}MiB")


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A small file system of its own at `path`. Skips the test where that is not allowed."""
    path.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def refusal(cache_dir: Path, *options: str) -> dict[str, Any]:
    """The one line of a server that does not start: exit code 1, and no traceback."""
    server = ServerProcess(cache_dir, options)
    with pytest.raises(RuntimeError, match="did not start"):
        server.start()
    assert server.wait() == 1
    assert [event for event in server.events if event["event"] == "output"] == []
    errors = [event for event in server.events if event.get("level") in ("error", "critical")]
    assert [event["event"] for event in errors] == ["not_started"]
    assert "exception" not in errors[0]
    return errors[0]


def event(server: ServerProcess, name: str) -> dict[str, Any]:
    (found,) = (event for event in server.events if event["event"] == name)
    return found


def answers(url: str) -> bool:
    """Whether a request succeeds and the server is ready after it."""
    answer = Conversation(url, max_tokens=4).ask("Say something.")
    with urllib.request.urlopen(f"{url}/health/ready") as response:
        return bool(answer.text) and response.status == 200


def test_a_full_disk_is_said_in_one_line(cache_dir: Path, converted_model: Path) -> None:
    """Without room for the pool the server ends and says what to do; in memory it runs."""
    disk = cache_dir.parent / "disk"
    with mounted(disk, "size=16m"):
        (disk / "models").symlink_to(converted_model)
        error = refusal(disk, *POOL)
        assert "No space left on device" in error["reason"]
        assert "--memory-only" in error["advice"]
        assert "--pool-size" in error["advice"]
        assert list((disk / "pools").iterdir()) == []
        with ServerProcess(disk, (*POOL, "--memory-only")) as server:
            assert answers(server.url)
        assert list((disk / "pools").iterdir()) == []


def test_a_file_that_may_not_be_so_large_is_said_in_one_line(cache_dir: Path) -> None:
    """The limit of a file's size is to the server what a full disk is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * MIB, before[1]))
    try:
        error = refusal(cache_dir, *POOL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in error["reason"]
    assert "--pool-size" in error["advice"]


def test_a_conversion_on_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    """A model that cannot be converted for lack of room leaves nothing behind."""
    with mounted(tmp_path / "disk", "size=16m"):
        error = refusal(tmp_path / "disk", *POOL, "--memory-only")
        assert "cannot be converted" in error["reason"]
        models = tmp_path / "disk" / "models"
        assert [path.name for path in models.iterdir()] == [".lock"]


def test_a_read_only_cache_directory_serves_from_memory(
    cache_dir: Path, converted_model: Path
) -> None:
    """With the converted model in it, `--memory-only` needs nothing else; a pool needs writing."""
    disk = cache_dir.parent / "disk"
    with mounted(disk, "size=256m"):
        shutil.copytree(converted_model, disk / "models")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        error = refusal(disk, *POOL)
        assert "Read-only file system" in error["reason"]
        assert "--memory-only" in error["advice"]
        with ServerProcess(disk, (*POOL, "--memory-only")) as server:
            agent = Conversation(server.url, "atlas", max_tokens=4)
            agent.ask("Say something.")
            assert agent.ask("Say more.").cached_tokens > 0
            assert answers(server.url)
            with urllib.request.urlopen(f"{server.url}/v1/agents") as response:
                assert b'"atlas"' in response.read()
        assert [path.name for path in disk.iterdir()] == ["models"]


def test_a_pool_that_another_server_has_open_is_said_in_one_line(cache_dir: Path) -> None:
    """The second server ends and names the way out; the first one goes on."""
    with ServerProcess(cache_dir, POOL) as server:
        error = refusal(cache_dir, *POOL)
        assert "already open" in error["reason"]
        assert error["advice"].startswith("stop the other server")
        assert answers(server.url)


def test_dead_files_of_twice_the_budget_make_room(cache_dir: Path) -> None:
    """P6: old formats and leftovers go, what is foreign stays, and one line tells of it."""
    pools = cache_dir / "pools"
    pools.mkdir()
    for number in range(4):
        dead = pools / f"old-{number:016x}.pool"
        dead.write_bytes(b"DOVECOTE" + bytes(POOL_MIB * MIB // 2))
    (pools / "gone-1111111111111111.pool.resizing").write_bytes(bytes(MIB))
    foreign = cache_dir / "thesis.tex"
    foreign.write_bytes(bytes(MIB))
    with ServerProcess(cache_dir, (*POOL, "--disk-budget", f"{POOL_MIB + 2}MiB")) as server:
        assert answers(server.url)
        told = event(server, "disk_budget")
        assert told["removed"]["unreadable"]["files"] == 4
        assert told["removed"]["leftover"] == {"files": 1, "bytes": MIB}
        assert told["found"]["foreign"] == {"files": 1, "bytes": MIB}
        assert told["pool_bytes"] == POOL_MIB * MIB
        assert len(list(pools.iterdir())) == 1
        assert foreign.exists()


def test_a_crowded_budget_makes_the_pool_smaller(cache_dir: Path) -> None:
    """The cache is not switched off, and at the next start it is as it was left."""
    foreign = cache_dir / "thesis.tex"
    foreign.write_bytes(bytes(20 * MIB))
    options = (*POOL, "--disk-budget", f"{POOL_MIB}MiB")
    first = None
    with ServerProcess(cache_dir, options) as server:
        agent = Conversation(server.url, "atlas", max_tokens=40)
        first = agent.ask("Tell me a long story about pigeons that find their way home.")
        told = event(server, "disk_budget")
        assert told["level"] == "warning"
        assert 95 * MIB < told["pool_bytes"] < 108 * MIB
        server.terminate()
        assert server.wait() == 0
        server.start()
        assert [e["how"] for e in server.events if e["event"] == "pool_opened"] == [
            "created",
            "reused",
        ]
        second = agent.moved_to(server.url).ask("Go on.")
        assert second.cached_tokens >= first.prompt_tokens
    used = sum(path.stat().st_size for path in cache_dir.rglob("*") if path.is_file())
    assert used <= POOL_MIB * MIB


def test_a_budget_without_room_for_one_context_is_said_in_one_line(cache_dir: Path) -> None:
    """The sizes are named."""
    (cache_dir / "thesis.tex").write_bytes(bytes(60 * MIB))
    error = refusal(cache_dir, *POOL, "--disk-budget", f"{POOL_MIB}MiB")
    assert f"the disk budget of {POOL_MIB * MIB} bytes" in error["reason"]
    assert "--disk-budget" in error["advice"]


def test_a_pool_smaller_than_a_block_is_said_in_one_line(cache_dir: Path) -> None:
    """As is any setting that only the model shows to be wrong."""
    error = refusal(cache_dir, "--pool-size", "1MiB", "--codec", "exact")
    assert error["reason"].startswith("--pool-size: 1048576 bytes are less than one block takes")


def test_tenants_with_different_salts_share_nothing(server: str) -> None:
    """What is known under one `cache_salt` is new under another, and known under the first."""
    found = []
    for salt in ("one", "two", "one"):
        body = {
            "messages": [{"role": "user", "content": "Pigeons always find their way home. Why?"}],
            "max_tokens": 1,
            "cache_salt": salt,
        }
        request = urllib.request.Request(
            f"{server}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            usage = json.load(response)["usage"]
        found.append(usage["prompt_tokens_details"]["cached_tokens"])
    assert found[:2] == [0, 0]
    assert found[2] == usage["prompt_tokens"] - 1


def test_a_disk_that_fills_up_while_serving_costs_no_answer(
    cache_dir: Path, converted_model: Path
) -> None:
    """Where the pool's file has lost its room, requests go on unkept and counted."""
    disk = cache_dir.parent / "disk"
    with mounted(disk, f"size={POOL_MIB + 8}m"):
        (disk / "models").symlink_to(converted_model)
        with ServerProcess(disk, POOL) as server:
            (pool,) = (disk / "pools").iterdir()
            hole = [
                "fallocate",
                "--punch-hole",
                "--offset",
                "0",
                "--length",
                str(pool.stat().st_size),
            ]
            subprocess.run([*hole, str(pool)], check=True)
            with pytest.raises(OSError, match="No space left"):
                (disk / "full").write_bytes(bytes(2 * POOL_MIB * MIB))
            agent = Conversation(server.url, "atlas", max_tokens=40)
            assert agent.ask("Tell me a long story about pigeons that find their way home.").text
            found = metrics(server.url)
            assert found["dovecote_seal_errors_total"] == 1
            assert found["dovecote_pool_write_errors_total"] == 1
            assert answers(server.url)
            server.terminate()
            assert server.wait() == 0
