"""`headrace topics`: create the declared topics, and compare them with what the broker has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from core.asyncapi import document
from core.kafka.admin import Change, apply_topics, diff_topics
from core.kafka.work_topics import apply_work, diff_work
from core.schema_registry.register import lacking_schemas, register_schemas
from core.settings.models import Settings
from headrace.options import config_option, load_here, reported, settings_here

json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")


@click.group()
def topics() -> None:
    """Create and check the Kafka topics.

    Nothing is created by accident: the broker's own auto-creation is never relied on, and the roles wait until the
    declared topics are there. `headrace up` applies them by itself; on a cluster run `headrace topics apply` once per
    release, with an account that may create topics and change their settings.
    """


@topics.command()
@config_option
@json_option
def apply(config: Path | None, as_json: bool) -> None:
    """Create missing topics and set differing topic settings.

    Safe to repeat: a second run changes nothing. The number of partitions of an existing topic is never changed, for
    the home of every task depends on it; such a difference stays visible in `headrace topics diff`. Only work topics
    are widened, and those of registered queues are made again when they are gone.

    With kafka.registry_url the schemas are registered in that schema registry, too, under the ids that records carry.
    """
    with reported():
        changes = asyncio.run(_apply(settings_here(config)))
        _show(changes, as_json=as_json, nothing="All topics are as declared.")


@topics.command()
@config_option
@json_option
def diff(config: Path | None, as_json: bool) -> None:
    """Compare the broker's topics with the declared ones; exit code 1 when something differs.

    For a deployment check: `headrace topics diff && start the roles`. With kafka.registry_url it tells which schemas
    that registry lacks, too.
    """
    with reported():
        changes = asyncio.run(_diff(settings_here(config)))
        _show(changes, as_json=as_json, nothing="No difference.")
    if changes:
        raise SystemExit(1)


@topics.command()
@config_option
def asyncapi(config: Path | None) -> None:
    """Print the AsyncAPI document: every topic with its records.

    For code generators and catalogues. The ingress serves the same at /asyncapi.json, without the broker's address.
    """
    with reported():
        settings = load_here(config)
        click.echo(json.dumps(document(settings, bootstrap=settings.kafka.bootstrap), indent=2))


async def _apply(settings: Settings) -> list[Change]:
    return [
        *await apply_topics(settings),
        *await apply_work(settings),
        *await register_schemas(settings, say=_progress),
    ]


async def _diff(settings: Settings) -> list[Change]:
    return [*await diff_topics(settings), *await diff_work(settings), *await lacking_schemas(settings)]


def _progress(text: str) -> None:
    click.echo(text, err=True)  # standard output is for the table, or for the program that reads the JSON


def _show(changes: Sequence[Change], *, as_json: bool, nothing: str) -> None:
    if as_json:
        click.echo(json.dumps([change._asdict() for change in changes], indent=2))
        return
    if not changes:
        click.echo(nothing)
        return
    # Folded, because a topic's name that is cut off cannot be copied.
    table = Table(*(Column(name, overflow="fold") for name in ("topic", "what", "is", "declared")))
    for change in changes:
        table.add_row(*map(Text, change))
    Console().print(table)
