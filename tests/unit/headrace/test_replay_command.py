"""`headrace replay`: what it refuses before it asks Kafka anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.commands.replay import replay
from headrace.options import settings_here

pytestmark = pytest.mark.usefixtures("empty_folder")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(replay, arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "yesterday"), "--from 'yesterday' must be a time"),
        (("--from", "-1h", "--to", "-2h"), "--from must be before --to"),
        (("--id", "nonsense"), "id 1: 'nonsense' is not a task id"),
        (("--queue-to", "a/b"), "--queue-to must be"),
        (("--model-to", ""), "--model-to must be"),
        (("--name", "../x"), "the name of a replay must be"),
        (("--by-workers", "--into", "live"), "--by-workers needs --queue-to"),
        (("--yes",), "give a destination: --into live, or --queue-to QUEUE"),
        (("--yes", "--into", "live", "--queue-to", "b"), "give a destination"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], said: str) -> None:
    found = run("run", *arguments)
    assert found.exit_code == 1
    assert said in found.output
    assert not Path(".headrace").exists()


@pytest.mark.parametrize("option", [("--rate", "0"), ("--level", "2"), ("--status", "queued"), ("--into", "shadow")])
def test_values_that_are_none(option: tuple[str, str]) -> None:
    assert run("run", *option).exit_code == 2


def test_an_empty_list_of_ids_is_not_everything(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("\n \n")
    found = run("run", "--ids", "ids", "--dry-run")
    assert "--ids contains no id" in found.output


def test_a_comparison_needs_a_replay() -> None:
    assert "give the name of the replay" in run("diff").output
    missing = run("diff", "nightly")
    assert missing.exit_code == 1
    assert "there is no replay in .headrace/replays/nightly.json" in missing.output


def test_there_may_be_no_read_model() -> None:
    assert run("read-model").output == "No read models found.\n"


def test_run_is_meant_where_no_command_is_named() -> None:
    found = run("--from", "yesterday", "--dry-run")
    assert found.exit_code == 1
    assert "--from 'yesterday' must be a time" in found.output
    assert "Commands:" in run("--help").output
    assert run("nightly").exit_code == 2


def test_the_broker_of_the_stack_that_runs_here_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = tmp_path / ".headrace" / "stack.json"
    stack.parent.mkdir()
    assert settings_here(None).kafka.bootstrap == "127.0.0.1:9092"
    stack.write_text('{"kafka": "127.0.0.1:4711"}')
    assert settings_here(None).kafka.bootstrap == "127.0.0.1:4711"
    stack.write_text(json.dumps({"kafka": "127.0.0.1:4712", "pid": os.getpid()}))
    assert settings_here(None).kafka.bootstrap == "127.0.0.1:4712"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stack.write_text(json.dumps({"kafka": "127.0.0.1:4712", "pid": gone.pid}))
    assert settings_here(None).kafka.bootstrap == "127.0.0.1:9092", "a stack that was killed runs no more"
    stack.write_text("[]")
    assert settings_here(None).kafka.bootstrap == "127.0.0.1:9092"
    stack.write_text('{"kafka": "127.0.0.1:4711"}')
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", "kafka:9092")
    assert settings_here(None).kafka.bootstrap == "kafka:9092"
    monkeypatch.delenv("HEADRACE_KAFKA_BOOTSTRAP")
    monkeypatch.setenv("HEADRACE_KAFKA_PARTITIONS", "7")
    found = settings_here(None).kafka
    assert (found.bootstrap, found.partitions) == ("127.0.0.1:4711", 7)
