"""Every option of `dovecote serve` is in docs/operations.md, and a test shows what it does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from dovecote.cli import app, serve
from dovecote.config import Settings
from dovecote.config_file import option_types

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {p.opts[0]: p for p in COMMANDS["serve"].params if p.name in option_types(serve)}
SOURCES = sorted((ROOT / "services/dovecote/src/dovecote").glob("*.py"))

EFFECTS = {
    "--model": "test_agents_are_warm_again_after_swapping_back",
    "--models": "test_agents_are_warm_again_after_swapping_back",
    "--host": "test_it_listens_where_it_was_told_to",
    "--codec": "test_blocks_and_codec_decide_the_size_of_a_frame",
    "--pool-size": "test_blocks_and_codec_decide_the_size_of_a_frame",
    "--block-tokens": "test_blocks_and_codec_decide_the_size_of_a_frame",
    "--max-body": "test_bodies_are_bounded",
    "--blas": "test_the_reference_blas_is_used_if_asked_for",
    "--threads": "test_threads_are_as_many_as_asked_for",
    "--model-alias": "test_an_alias_is_the_served_model_and_no_other_name_is",
    "--port": "test_a_pool_that_another_server_has_open_is_said_in_one_line",
    "--memory-only": "test_a_read_only_cache_directory_serves_from_memory",
    "--disk-budget": "test_a_crowded_budget_makes_the_pool_smaller",
    "--cache-dir": "test_the_cache_is_private",
    "--pin-limit": "test_pins_are_bounded_and_the_error_has_the_numbers",
    "--max-rows": "test_a_request_that_waits_too_long_is_told_when_to_come_back",
    "--max-waiting-tokens": "test_prompt_tokens_that_wait_are_bounded",
    "--queue-timeout": "test_a_request_that_waits_too_long_is_told_when_to_come_back",
    "--request-timeout": "test_a_request_that_takes_too_long_ends",
    "--slab-size": "test_the_slab_bounds_the_context",
    "--max-waiting": "test_the_queue_is_bounded",
    "--gap-ratio": "test_a_chunk_is_bounded_by_the_gap_that_it_makes",
    "--chunk-ms": "test_a_chunk_is_bounded_in_time_while_others_wait",
    "--keepalive": "test_a_silent_stream_is_kept_alive",
    "--drain": "test_a_drain_is_bounded",
    "--api-keys": "test_keys_come_from_the_file_and_from_the_environment",
    "--allowed-host": "test_names_are_insisted_on_where_all_are_known",
    "--share-prefixes": "test_equal_prefixes_are_shared_where_the_operator_allows_it",
    "--rate-limit-requests": "test_each_key_has_its_own_limit",
    "--rate-limit-tokens": "test_tokens_of_prompt_and_answer_count",
    "--cors-origin": "test_every_answer_can_be_read_by_the_page",
    "--receive-timeout": "test_a_head_that_does_not_come_is_408",
    "--send-timeout": "test_a_client_that_never_reads_is_given_up",
    "--max-connections": "test_where_all_connections_work_a_new_one_is_503",
    "--swap-on-request": "test_a_request_has_a_model_loaded_only_where_that_is_offered",
}
"""By option, the test that fails if the option does nothing, wherever it lies."""
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
}


def default_of(option: str) -> str:
    """As it stands in the table: what the help says, else the value."""
    parameter = OPTIONS[option]
    shown = parameter.show_default
    value = shown if isinstance(shown, str) else parameter.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return {"": "none"}.get(str(value), str(value))


def row_of(option: str) -> str:
    """The beginning of the option's row."""
    default = default_of(option)
    told = default if " " in default or default in ("none", "on", "off") else f"`{default}`"
    return f"| `{option}` | `{OPTIONS[option].envvar}` | {told} |"


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_is_in_the_table(option: str) -> None:
    """With its variable, its default, and a meaning."""
    row = next((line for line in OPERATIONS.splitlines() if f"| `{option}` |" in line), "")
    assert row.startswith(row_of(option)), f"docs/operations.md lacks: {row_of(option)} ... |"
    assert len(row.removeprefix(row_of(option)).strip(" |")) > 10


def test_the_table_has_no_other_options() -> None:
    """What went away goes from the table."""
    listed = re.findall(r"^\| `(--[\w-]+)` \| `DOVECOTE", OPERATIONS, re.MULTILINE)
    assert sorted(listed) == sorted(OPTIONS)


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_has_a_test_that_shows_its_effect(option: str) -> None:
    """Whoever adds an option names the test that would miss it."""
    assert option in EFFECTS, f"add {option} and the test that shows what it does to EFFECTS"
    assert EFFECTS[option] in TESTS


@pytest.mark.parametrize("field", Settings.__dataclass_fields__)
def test_every_setting_is_read(field: str) -> None:
    """Outside the module that checks it."""
    readers = (path.read_text() for path in SOURCES if path.name not in ("config.py", "cli.py"))
    assert any(re.search(rf"settings\.{field}\b", text) for text in readers)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"serve"}))
def test_every_other_command_is_explained(command: str) -> None:
    """With all of its subcommands."""
    assert f"`dovecote {command}" in OPERATIONS
    for subcommand in getattr(COMMANDS[command], "commands", {}):
        assert f"`{subcommand}`" in OPERATIONS or f"agents {subcommand}" in OPERATIONS
