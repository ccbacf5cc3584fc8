"""The settings that are tables: entries by name, each with members of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings.loader import load_settings
from tests.support.config import refusal

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_tables_come_from_the_file_or_as_json(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text('[models.smollm2]\nprompt_price = 0.25\n[queues."night-run"]\nlevel = 1\n')
    settings = load_settings(environ={}, config=file)
    assert settings.queues["night-run"].level == 1
    assert str(settings.models["smollm2"].prompt_price) == "0.25"
    same = {"HEADRACE_MODELS": '{"smollm2": {"prompt_price": 0.25}}', "HEADRACE_QUEUES": '{"night-run": {"level": 1}}'}
    assert load_settings(environ=same) == settings


def test_a_wrong_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text("[queues.chat]\nlevel = 2\n")
    assert refusal(config=file).startswith(f"queues.chat.level in {file} is wrong")
    for text, sentence in (
        ("[queues.chat]\nlevle = 1\n", "queues.chat.levle in FILE is not a setting; did you mean queues.chat.level?"),
        (
            "[models.'m.1']\nprompt_prize = 1\n",
            "models.m.1.prompt_prize in FILE is not a setting; did you mean models.m.1.prompt_price?",
        ),
        ("[queues.levels]\nx = 1\n", "queues.levels.x in FILE is not a setting; there are level, timeout_s, "),
    ):
        file.write_text(text)
        assert refusal(config=file).startswith(sentence.replace("FILE", str(file)))
    given = {"HEADRACE_MODELS": '{"m": {"curency": "EUR"}}'}
    assert refusal(environ=given).endswith("HEADRACE_MODELS is not a setting; did you mean models.m.currency?")
    assert "HEADRACE_MODELS" in refusal(environ={"HEADRACE_MODELS": "{"})
