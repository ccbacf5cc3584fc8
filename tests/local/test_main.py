from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from headrace.main import COMMANDS, main

HEAVY = ("aiokafka", "fastapi", "faust", "httpx", "pydantic", "compose", "dispatcher", "ingress", "streams")


def test_the_overview_imports_nothing() -> None:
    code = (
        "import sys; from headrace.main import main; main(['--help'], standalone_mode=False); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.endswith("[]\n"), result.stdout


def test_the_overview_names_every_command() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    assert not [name for name, command in COMMANDS.items() if name not in text or command.help not in text]


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["ingres"])
    assert result.exit_code == 2
    assert "ingres" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    context = click.Context(main)
    assert main.get_command(context, name) is not None
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage: ")
