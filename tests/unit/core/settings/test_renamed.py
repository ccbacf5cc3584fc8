"""Old names of settings: accepted in every source for one version, reported, and refused beside the new ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from core.errors import ConfigError
from core.process import run_role
from core.settings.catalog import by_dotted, members, plain
from core.settings.loader import load_settings
from core.settings.models import Settings
from core.settings.renamed import RENAMED, RENAMED_MEMBERS
from headrace.main import main

pytestmark = pytest.mark.usefixtures("empty_folder")
PAGE = Path(__file__).parents[4] / "docs/operations/renamed.md"


def variable(dotted: str) -> str:
    return "HEADRACE_" + dotted.replace(".", "_").upper()


def value_of(settings: Settings, dotted: str) -> Any:
    section, field = dotted.split(".")
    return getattr(getattr(settings, section), field)


def other_value(dotted: str) -> str:
    setting = by_dotted()[dotted]
    if setting.type == "choice":
        return "webhooks"
    return "shop" if setting.type in ("text", "list of text") else str(int(float(setting.default)) + 60)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_works_in_a_file_a_variable_and_a_flag(old: str, new: str, tmp_path: Path) -> None:
    value = other_value(new)
    section, field = old.split(".")
    file = tmp_path / "old.toml"
    file.write_text(f"[{section}]\n{field} = {value if value.isdigit() else json.dumps(value)}\n")
    by_file = load_settings(config=file, environ={})
    by_variable = load_settings(environ={variable(old): value})
    by_flag = load_settings(flags={old: value}, environ={})
    expected = load_settings(environ={variable(new): value})
    assert [plain(value_of(one, new)) for one in (by_file, by_variable, by_flag)] == [
        plain(value_of(expected, new))
    ] * 3
    assert by_file.renamed == by_flag.renamed == ((old, new),)
    assert by_variable.renamed == ((variable(old), variable(new)),)
    assert expected.renamed == ()


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_beside_the_new_one_is_refused_by_both_names(old: str, new: str, tmp_path: Path) -> None:
    (section, field), (new_section, new_field) = old.split("."), new.split(".")
    file = tmp_path / "both.toml"
    tables = {section: {field}} | {new_section: {new_field}}
    if section == new_section:
        tables = {section: {field, new_field}}
    file.write_text("".join(f"[{name}]\n" + "".join(f"{one} = 1\n" for one in ones) for name, ones in tables.items()))
    with pytest.raises(ConfigError) as refused:
        load_settings(config=file, environ={})
    assert f"{old} and {new} are both set in {file}" in refused.value.message
    with pytest.raises(ConfigError) as refused:
        load_settings(environ={variable(old): "1", variable(new): "1"})
    assert f"{variable(old)} and {variable(new)} are both set" in refused.value.message


def test_a_stronger_source_wins_under_either_name(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text("[ingress]\nhold_s = 100\n")
    for name in ("HEADRACE_INGRESS_HOLD_S", "HEADRACE_INGRESS_BLOCKING_TIMEOUT_S"):
        assert load_settings(config=file, environ={name: "200"}).ingress.blocking_timeout_s == 200


def test_a_variable_may_name_a_file_under_its_old_name(tmp_path: Path) -> None:
    (tmp_path / "value").write_text("30\n")
    settings = load_settings(environ={"HEADRACE_INGRESS_HOLD_S_FILE": str(tmp_path / "value")})
    assert settings.ingress.blocking_timeout_s == 30


def test_old_members_of_queues_work_in_a_file_and_in_json(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text("[queues.chat]\nmax_waiting = 3\n")
    pair = ("queues.chat.max_waiting", "queues.chat.max_depth")
    for settings in (
        load_settings(config=file, environ={}),
        load_settings(environ={"HEADRACE_QUEUES": '{"chat": {"max_waiting": 3}}'}),
    ):
        assert settings.queues["chat"].max_depth == 3
        assert settings.renamed == (pair,)
    file.write_text("[queues.chat]\nmax_waiting = 3\nmax_depth = 4\n")
    with pytest.raises(ConfigError, match=r"queues\.chat\.max_waiting and queues\.chat\.max_depth are both set"):
        load_settings(config=file, environ={})


def test_a_wrong_value_is_refused_under_the_name_that_was_given() -> None:
    with pytest.raises(ConfigError, match=r"ingress\.blocking_timeout_s from HEADRACE_INGRESS_HOLD_S is 'soon'"):
        load_settings(environ={"HEADRACE_INGRESS_HOLD_S": "soon"})


def test_a_role_logs_one_line_for_each_old_name(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(_: object) -> None: ...

    settings = load_settings(environ={"HEADRACE_INGRESS_HOLD_S": "30", "HEADRACE_DISPATCHER_GRACE_S": "3"})
    with caplog.at_level(logging.WARNING):
        run_role("ingress", settings, nothing)
    lines = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "setting_renamed"]
    assert lines == [
        f"setting {old} is deprecated and will be removed in the next version; use {new}"
        for old, new in settings.renamed
    ]
    assert len(lines) == 2


def test_a_command_warns_on_stderr_of_an_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_INGRESS_HOLD_S", "30")
    result = CliRunner().invoke(main, ["config", "print"])
    assert "blocking_timeout_s = 30" in result.stdout
    assert result.stderr.count("HEADRACE_INGRESS_HOLD_S is deprecated") == 1


def test_the_old_flag_of_the_dispatcher_is_refused_beside_the_new_one() -> None:
    result = CliRunner().invoke(main, ["dispatcher", "--only", "webhooks", "--component", "webhooks"])
    assert result.exit_code == 2
    assert "--only is the old name of --component" in result.stderr


def test_new_names_are_settings_and_old_ones_are_not() -> None:
    assert set(RENAMED.values()) <= by_dotted().keys()
    assert not by_dotted().keys() & RENAMED.keys()
    for table, names in RENAMED_MEMBERS.items():
        known = {member.dotted.rpartition(".")[2] for member in members(table)}
        assert set(names.values()) <= known
        assert not known & names.keys()


def test_the_page_of_renamed_settings_is_complete() -> None:
    text = PAGE.read_text()
    for old, new in RENAMED.items():
        assert f"| `{old}` | `{new}` |" in text
