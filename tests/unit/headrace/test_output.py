"""What commands print: tables that fit a terminal without a broken id, and the same in full for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from headrace import batch_display, output
from headrace.commands import dead_letters, keys, queues, tasks, topics, webhooks, workers
from headrace.docs.command_line import commands
from headrace.examples import EXAMPLES
from headrace.main import main
from headrace.output import Column, cell, show_members, show_table, table_lines
from headrace.replay import tables

UUID = "0193f5a1-c2d3-7c4a-8d5e-6f708192a3b4"
MOMENT = "2026-12-01T03:44:12.345Z"
LONG = "a record that cannot be decoded: " + "x" * 300
FULL: dict[str, tuple[Sequence[Column], dict[str, object]]] = {
    "tasks": (
        tasks.COLUMNS,
        {
            "task_id": UUID,
            "status": "processing",
            "queue": "q" * 40,
            "level": "offline",
            "model_code": "m" * 40,
            "owner": "tenant" * 5,
            "created_at": MOMENT,
            "error_code": "deadline_exceeded",
        },
    ),
    "queues": (
        queues.COLUMNS,
        {
            "name": "q" * 40,
            "served_by": "dispatcher",
            "paused": False,
            "waiting": {"online": 12, "offline": 123_456},
            "max_waiting": 1_000_000,
            "width": 6,
            "concurrency": 8,
            "result_retention_s": 604_800,
            "endpoint": "/v1/chat/completions",
            "owner": "tenant" * 5,
        },
    ),
    "dead letters": (
        dead_letters.COLUMNS,
        {
            "id": "2-1234567",
            "reason": LONG,
            "field": "level",
            "topic": "headrace.tasks.offline",
            "partition": 2,
            "offset": 1_234_567,
            "buried_at": MOMENT,
            "redriven_at": MOMENT,
        },
    ),
    "dispatchers": (
        workers.DISPATCHERS,
        {
            "name": "dispatcher-7f9c4d5b8-x2x4k",
            "running": 64,
            "upstreams_up": 2,
            "last_heartbeat_at": MOMENT,
            "partitions": 96,
        },
    ),
    "schedulers": (
        workers.SCHEDULERS,
        {"name": "streams-7f9c4d5b8-x2x4k", "level": "offline", "partitions": [0, 1, 2], "last_heard_at": MOMENT},
    ),
    "other consumers": (workers.OTHERS, {"name": "group" * 8, "queues": ["a" * 30, "b" * 30]}),
    "pull workers": (
        workers.PULLERS,
        {
            "name": "worker-7f9c4d5b8-x2x4k",
            "queue": "q" * 20,
            "level": "online",
            "running": 3,
            "next_lease_ends_at": MOMENT,
        },
    ),
    "webhooks": (
        webhooks.COLUMNS,
        {
            "task_id": UUID,
            "event": "completed",
            "state": "delivered",
            "made": 3,
            "last": LONG,
            "next": MOMENT,
            "url": "https://hooks.example.com/" + "p" * 60,
        },
    ),
    "topics": (topics.COLUMNS, {"topic": "headrace.tasks.offline", "what": "retention.ms", "was": "1", "wanted": "2"}),
    "keys": (
        keys.COLUMNS,
        {
            "tenant": "tenant" * 3,
            "key": "key-0a1b2c3d4e5f",
            "state": "until 2027-01-31 00:00 UTC",
            "scopes": "submit,read,admin",
            "requests_per_minute": 600,
            "concurrency": 16,
        },
    ),
    "batches": (
        batch_display.COLUMNS,
        {
            "id": "batch_0193f5a1c2d37c4a8d5e6f708192a3b4",
            "status": "in_progress",
            "created": "2026-12-01 03:44",
            "done": "49999/50000",
            "failed": 12,
            "endpoint": "/v1/chat/completions",
            "model": "m" * 40,
        },
    ),
    "replay": (
        tables.COST_COLUMNS,
        {column.member: "1,234,567" for column in tables.COST_COLUMNS},
    ),
}
"""Every table of the command line, with a row whose values are long."""


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that prints a table on a terminal of a width, or on none, and returns its lines."""

    def run(name: str, *, width: int | None, form: output.Output = "table") -> list[str]:
        columns, row = FULL[name]
        monkeypatch.setattr(output, "terminal_width", lambda: width)

        @click.command()
        def command() -> None:
            show_table([row, row], columns, output=form, nothing="")

        return CliRunner().invoke(command, catch_exceptions=False).stdout.splitlines()

    return run


@pytest.mark.parametrize("name", FULL)
def test_a_table_fits_80_columns_on_one_line_per_row_and_its_id_is_whole(
    printed: Callable[..., list[str]], name: str
) -> None:
    lines = printed(name, width=80)
    columns, row = FULL[name]
    assert len(lines) == 3
    assert max(map(cell_len, lines)) <= 80
    for column in columns:
        if column.rank == 0:
            assert cell(row[column.member]) in lines[1]


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize(("width", "form"), [(None, "table"), (80, "wide"), (None, "wide")])
def test_wide_output_and_output_to_a_program_is_whole(
    printed: Callable[..., list[str]], name: str, width: int | None, form: output.Output
) -> None:
    lines = printed(name, width=width, form=form)
    columns, row = FULL[name]
    assert len(lines) == 3
    assert lines[0].split() == [column.head.upper() for column in columns]
    for column in columns:
        value: Any = row
        for part in column.member.split("."):
            value = value[part]
        assert cell(value) in lines[1]


def test_json_output_is_the_rows_as_they_came(printed: Callable[..., list[str]]) -> None:
    assert json.loads("\n".join(printed("queues", width=80, form="json"))) == [FULL["queues"][1]] * 2


texts = st.text(max_size=60)


@given(st.lists(st.tuples(texts, texts, texts), max_size=5), st.integers(20, 200) | st.none())
def test_a_row_is_always_one_line(rows: list[tuple[str, str, str]], width: int | None) -> None:
    columns = (Column("id", "id"), Column("reason", "reason", 1, text=True), Column("owner", "owner", 2))
    lines = table_lines(columns, rows, width=width)
    assert len(lines) == 1 + len(rows)
    assert not any(line.splitlines()[1:] for line in lines)
    if width is None:
        assert all(
            "…" not in line or any("…" in text for text in row) for line, row in zip(lines[1:], rows, strict=True)
        )


def test_columns_are_left_out_by_rank_and_text_is_shortened_before() -> None:
    columns = (Column("id", "id"), Column("reason", "reason", 1, text=True), Column("owner", "owner", 2))
    row = ("1" * 10, "r" * 30, "o" * 10)
    assert table_lines(columns, [row], width=56)[1] == f"{row[0]}   {row[1]}   {row[2]}"
    assert table_lines(columns, [row], width=50)[1] == f"{row[0]}   {'r' * 23}…   {row[2]}"
    assert table_lines(columns, [row], width=30)[1] == f"{row[0]}   {'r' * 16}…"
    assert table_lines(columns, [row], width=20)[1] == row[0]
    assert table_lines(columns, [row], width=5)[1] == row[0]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in table_lines((Column("id", "id"),), [("\x1b[31mred\nnext",)], width=None)[1]


def test_members_are_a_line_each() -> None:
    @click.command()
    def command() -> None:
        show_members({"name": "chat", "waiting": {"online": 1}, "note": None, "endpoint": "x" * 200}, as_json=False)

    assert CliRunner().invoke(command).stdout.splitlines() == [
        "name:       chat",
        'waiting:    {"online": 1}',
        "note:",
        f"endpoint:   {'x' * 200}",
    ]


@pytest.mark.parametrize(("path", "command"), list(commands()))
def test_every_command_has_an_example_in_its_help(path: str, command: click.Command) -> None:
    name = path.removeprefix("headrace ")
    example = EXAMPLES[name]
    arguments = name.split()
    assert example.removeprefix('eval "$(').split()[1 : 1 + len(arguments)] == arguments or name == "completion"
    help_text = CliRunner().invoke(main, [*arguments, "--help"], env={"COLUMNS": "200"}).stdout
    assert f"Example:\n    {example}" in help_text
    options = {option for one in command.params for option in one.opts} | {"--yes"}
    assert {word for word in example.split() if word.startswith("-")} <= options


def test_examples_are_of_commands_that_exist() -> None:
    assert EXAMPLES.keys() == {path.removeprefix("headrace ") for path, _ in commands()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_completes_commands_and_options(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell], prog_name="headrace")
    assert script.exit_code == 0
    assert "_HEADRACE_COMPLETE" in script.stdout
    words = {"COMP_WORDS": "headrace que", "COMP_CWORD": "1" if shell != "fish" else "que"}
    asked = CliRunner().invoke(main, [], prog_name="headrace", env={"_HEADRACE_COMPLETE": f"{shell}_complete", **words})
    assert "queues" in asked.stdout


@pytest.mark.parametrize("flag", [["--json"], ["-o", "json"], ["--format", "json"]])
def test_json_is_chosen_by_either_option(flag: list[str]) -> None:
    listed = CliRunner().invoke(main, ["keys", "list", *flag], catch_exceptions=False)
    assert json.loads(listed.stdout)[0]["key"]
