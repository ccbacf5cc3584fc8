"""`headrace config`: show the settings, their sources and allowed values."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from core.settings.catalog import documented
from core.settings.loader import as_toml
from core.settings.renamed import RENAMED
from headrace.options import config_option, load_here, reported


@click.group()
def config() -> None:
    """Show the settings.

    Each setting has a default, which headrace.toml overrides, which a HEADRACE_ variable overrides, which a flag
    overrides. In the file settings are in sections; a variable is HEADRACE_SECTION_FIELD:

    \b
        [ingress]
        port = 9000          # or HEADRACE_INGRESS_PORT=9000

    A misspelt name or an invalid value is an error of every command.
    """


@config.command(name="print")
@config_option
def print_(config: Path | None) -> None:
    """Print the effective settings as TOML, secrets hidden.

    The output is a complete settings file: save it, fill in the secrets, and give it to any command with --config.
    """
    with reported():
        click.echo(as_toml(load_here(config)), nl=False)


@config.command(name="variables")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of text.")
@click.argument("word", default="")
def list_variables(as_json: bool, word: str) -> None:
    """List every setting with its variable, default and range.

    Tables are followed by the members of their entries. With WORD only settings whose name or description
    contains it: `headrace config variables timeout`.
    """
    chosen = [v for v in documented() if word.lower() in f"{v.dotted} {v.name} {v.description}".lower()]
    if as_json:
        click.echo(json.dumps([asdict(variable) for variable in chosen], indent=2))
        return
    if not chosen:
        new = RENAMED.get(word)
        click.echo(f"No setting matches {word!r}{f'; its new name is {new}' if new else ''}.", err=True)
    for variable in chosen:
        click.echo(f"{variable.dotted} = {variable.default or '(not set)'}")
        table = variable.dotted.rpartition(".")[0]
        click.echo(f"    {variable.name or f'[{table}] in headrace.toml'}: {variable.allowed}")
        click.echo(f"    {variable.description}")
