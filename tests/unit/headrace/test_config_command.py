from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from core.settings.catalog import documented
from core.settings.models import ModelSettings
from headrace.commands.config import config
from headrace.commands.topics import topics

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_print_shows_the_effective_settings_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "given.toml").write_text('[ingress]\nport = 9000\n[auth]\napi_keys = ["sk-secret-1"]\n')
    run = CliRunner().invoke(
        config, ["print", "--config", str(tmp_path / "given.toml")], env={"HEADRACE_KAFKA_PARTITIONS": "48"}
    )
    assert run.exit_code == 0
    shown = tomllib.loads(run.stdout)
    assert (shown["ingress"]["port"], shown["kafka"]["partitions"]) == (9000, 48)
    assert shown["auth"]["api_keys"] == ["***"]


def test_a_mistake_is_one_sentence_and_exit_code_1() -> None:
    run = CliRunner().invoke(config, ["print"], env={"HEADRACE_KAFKA_PARTITION": "48"})
    assert run.exit_code == 1
    assert run.stderr == ("Error: HEADRACE_KAFKA_PARTITION is not a setting; did you mean HEADRACE_KAFKA_PARTITIONS?\n")


def test_variables_lists_all_or_those_with_a_word() -> None:
    run = CliRunner().invoke(config, ["variables", "--json"])
    assert [entry["dotted"] for entry in json.loads(run.stdout)] == [setting.dotted for setting in documented()]
    found = CliRunner().invoke(config, ["variables", "RETRY_DELAYS"]).stdout
    delays = "5,300,1800,7200,18000,36000,50400,72000,86400"
    assert found.startswith(f"webhooks.retry_delays = {delays}\n    HEADRACE_WEBHOOKS_RETRY_DELAYS: numbers, ")


def test_variables_lists_the_members_of_tables_with_no_variable_of_their_own() -> None:
    shown = CliRunner().invoke(config, ["variables", "queues.NAME.level"]).stdout
    assert shown == (
        "queues.NAME.level = 0\n    [queues.NAME] in headrace.toml: one of 0, 1\n"
        "    Level of async tasks that name none: 0 online, 1 offline.\n"
    )
    listed = json.loads(CliRunner().invoke(config, ["variables", "--json", "models"]).stdout)
    names = ["models", *(f"models.NAME.{member}" for member in ModelSettings.model_fields)]
    assert [one["dotted"] for one in listed if one["dotted"].startswith("models")] == names
    assert [one["name"] for one in listed if one["dotted"].startswith("models.")] == [""] * (len(names) - 1)


@pytest.mark.parametrize("command", ["apply", "diff"])
def test_no_broker_is_one_sentence_and_exit_code_1(command: str) -> None:
    nobody = {"HEADRACE_KAFKA_BOOTSTRAP": "127.0.0.1:1", "HEADRACE_KAFKA_REQUEST_TIMEOUT_S": "2"}
    run = CliRunner().invoke(topics, [command], env=nobody)
    assert run.exit_code == 1
    assert run.stderr == "Error: no Kafka broker answers at 127.0.0.1:1\n"


@pytest.mark.parametrize("group", [config, topics])
def test_every_command_has_help_that_says_more_than_its_name(group: object) -> None:
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert len(command.help or "") > 60, name
